// This file has the kernels of norm_rows (norms.h). Each warp normalizes a row, in float32 whatever
// T is.
#include "engine/cuda/device.cuh"
#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/norms/norms.h"

namespace xlate::cuda {
namespace {

// A block has this many threads. With small blocks the last wave of blocks is shorter.
constexpr int kNormBlock = 128;

// Computes the layer norm of post-norm networks: out = norm(sum) with a shift.
template <class T, class X, int kVectors>
__global__ void layer_norm_kernel(NormArgs<T, X> args) {
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  if (row >= args.rows) return;
  norm_vectors<T, X, kVectors>(args.x ? args.x + row * args.x_stride : nullptr, args.x_bias,
                               row_of(args.residual, row), args.gain, args.shift,
                               row_of(args.out, row), static_cast<int>(args.width), args.epsilon);
}

// Computes all that NormArgs can ask for.
template <class T, class X, int kVectors>
__global__ void norm_vector_kernel(NormArgs<T, X> args) {
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  if (row >= args.rows) return;
  const int width = static_cast<int>(args.width);
  float values[1][kVectors][Vector16<T>::kSize];
  load_sum<T, X, kVectors>(values[0], args.x ? args.x + row * args.x_stride : nullptr, args.x_bias,
                           row_of(args.residual, row), width);
  if (const ResidualRow<T> sum = row_of(args.sum, row); sum.rounded) {
#pragma unroll
    for (int p = 0; p < kVectors; ++p) {
      const int column = vector_column<T>(p);
      if (column < width) store_values(sum, column, values[0][p]);
    }
  }
  if (!args.gain) return;
  norm_values<T, kVectors, 1, true>(
      values, args.gain, args.shift, width, args.epsilon,
      [&](int, int column, const float(&results)[Vector16<T>::kSize]) {
        store_values(row_of(args.out, row), column, results);
      },
      args.rms);
}

// Normalizes rows of any width and alignment. A lane sums other columns than in norm_vector_kernel,
// so the two kernels' results may differ in their last bits. Only with kScaled it applies x_scale.
template <class T, class X, bool kScaled>
__global__ void norm_row_kernel(NormArgs<T, X> args) {
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= args.rows) return;
  const ResidualRow<const T> residual = row_of(args.residual, row);
  const ResidualRow<T> sum = row_of(args.sum, row), out = row_of(args.out, row);
  const auto at = [&](std::int64_t i) {
    float x = args.x ? to_float(args.x[row * args.x_stride + i]) : 0;
    if (args.x_bias) x += to_float(args.x_bias[i]);
    if (kScaled) x *= args.x_scale;
    return residual.rounded ? x + widened<T>(to_float(residual.rounded[i]),
                                             residual.low_bits ? residual.low_bits[i] : 0)
                            : x;
  };
  float2 moment[1] = {};
  if (args.gain)
    moments(
        moment, args.width, args.epsilon,
        [&](const auto& add) {
          for (std::int64_t i = lane; i < args.width; i += kWarp) add(0, at(i));
        },
        args.rms);
  // The sum may lie where a term does, so a lane reads an element before it stores it.
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    const float exact = at(i);
    if (sum.rounded) store_value(sum, i, exact);
    if (args.gain)
      store_value(
          out, i,
          (exact - moment[0].x) * moment[0].y * args.gain[i] + (args.shift ? args.shift[i] : 0.0f));
  }
}

}  // namespace

template <class T, class X>
void norm_rows(const NormArgs<T, X>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const unsigned grid = blocks_for(args.rows, kNormBlock / kWarp);
  const std::int64_t vectors =
      (args.width + kWarp * Vector16<T>::kSize - 1) / (kWarp * Vector16<T>::kSize);
  const bool aligned =
      vector_aligned<T>(args.width | args.x_stride, {args.x, args.x_bias, args.gain, args.shift}) &&
      vector_aligned(args.residual) && vector_aligned(args.sum) && vector_aligned(args.out);
  const bool layer_norm = args.gain && args.shift && !args.rms && !args.sum.rounded;
  if (args.x_scale != 1)
    norm_row_kernel<T, X, true><<<grid, kNormBlock, 0, stream>>>(args);
  else if (!aligned || vectors > 8)
    norm_row_kernel<T, X, false><<<grid, kNormBlock, 0, stream>>>(args);
  else if (layer_norm && vectors <= 2)
    layer_norm_kernel<T, X, 2><<<grid, kNormBlock, 0, stream>>>(args);
  else if (layer_norm)
    layer_norm_kernel<T, X, 8><<<grid, kNormBlock, 0, stream>>>(args);
  else if (vectors <= 2)
    norm_vector_kernel<T, X, 2><<<grid, kNormBlock, 0, stream>>>(args);
  else
    norm_vector_kernel<T, X, 8><<<grid, kNormBlock, 0, stream>>>(args);
}

#define INSTANTIATE(T) template void norm_rows<T>(const NormArgs<T, T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
template void norm_rows<__half>(const NormArgs<__half, float>&, cudaStream_t);
template void norm_rows<__nv_bfloat16>(const NormArgs<__nv_bfloat16, float>&, cudaStream_t);

}  // namespace xlate::cuda
