// This file has the kernels of layer_norm (norms.h). Each warp normalizes a row, in float32
// whatever T is.
#include "engine/cuda/device.cuh"
#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/norms/norms.h"

namespace xlate::cuda {
namespace {

// A block has this many threads. With small blocks the last wave of blocks is shorter.
constexpr int kNormBlock = 128;

template <class T, class X, int kVectors>
__global__ void norm_vector_kernel(NormArgs<T, X> args) {
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  if (row >= args.rows) return;
  norm_vectors<T, X, kVectors>(args.x ? args.x + row * args.x_stride : nullptr, args.x_bias,
                               row_of(args.residual, row), args.gain, args.shift,
                               row_of(args.out, row), static_cast<int>(args.width), args.epsilon);
}

// Normalizes rows of any width and alignment. A lane sums other columns than in norm_vector_kernel,
// so the two kernels' results may differ in their last bits.
template <class T, class X>
__global__ void norm_row_kernel(NormArgs<T, X> args) {
  const std::int64_t row =
      (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= args.rows) return;
  const ResidualRow<const T> residual = row_of(args.residual, row);
  const ResidualRow<T> out = row_of(args.out, row);
  const auto at = [&](std::int64_t i) {
    float x = args.x ? to_float(args.x[row * args.x_stride + i]) : 0;
    if (args.x_bias) x += to_float(args.x_bias[i]);
    return residual.rounded ? x + widened<T>(to_float(residual.rounded[i]),
                                             residual.low_bits ? residual.low_bits[i] : 0)
                            : x;
  };
  float2 moment[1];
  moments(moment, args.width, args.epsilon, [&](const auto& add) {
    for (std::int64_t i = lane; i < args.width; i += kWarp) add(0, at(i));
  });
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    store_value(out, i, (at(i) - moment[0].x) * moment[0].y * args.gain[i] + args.shift[i]);
  }
}

}  // namespace

template <class T, class X>
void layer_norm(const NormArgs<T, X>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const unsigned grid = blocks_for(args.rows, kNormBlock / kWarp);
  const std::int64_t vectors =
      (args.width + kWarp * Vector16<T>::kSize - 1) / (kWarp * Vector16<T>::kSize);
  const bool aligned =
      vector_aligned<T>(args.width | args.x_stride, {args.x, args.x_bias, args.gain, args.shift}) &&
      vector_aligned(args.residual) && vector_aligned(args.out);
  if (aligned && vectors <= 2)
    norm_vector_kernel<T, X, 2><<<grid, kNormBlock, 0, stream>>>(args);
  else if (aligned && vectors <= 8)
    norm_vector_kernel<T, X, 8><<<grid, kNormBlock, 0, stream>>>(args);
  else
    norm_row_kernel<<<grid, kNormBlock, 0, stream>>>(args);
}

#define INSTANTIATE(T) template void layer_norm<T>(const NormArgs<T, T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
template void layer_norm<__half>(const NormArgs<__half, float>&, cudaStream_t);
template void layer_norm<__nv_bfloat16>(const NormArgs<__nv_bfloat16, float>&, cudaStream_t);

}  // namespace xlate::cuda
