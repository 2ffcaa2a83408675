// Row-wise kernels: embedding, layer norm, what follows a product, conversion. A warp per row for the norm, a thread per 16 bytes or per
// element elsewhere; arithmetic in float32 whatever T is.
#include <initializer_list>

#include "engine/cuda/activation.cuh"
#include "engine/cuda/device.cuh"
#include "engine/cuda/kernels.h"
#include "engine/cuda/norm.cuh"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kNormBlock = 128;  // its last wave of blocks is shorter

// One piece of a row, or, where rows are not aligned to pieces, one element.
template <class T, class Unit>
__device__ void embed_unit(const EmbedArgs<T>& args, std::int64_t row, std::int64_t column, std::int32_t id, std::int32_t place) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  Unit unit = *reinterpret_cast<const Unit*>(args.table + id * args.table_stride + column);
  const Floats<kSize> position(args.positions + place * args.positions_stride + column);
  T* values = reinterpret_cast<T*>(&unit);
#pragma unroll
  for (int i = 0; i < kSize; ++i) values[i] = from_float<T>(fmaf(to_float(values[i]), args.scale, position.values[i]));
  *reinterpret_cast<Unit*>(args.out + row * args.out_stride + column) = unit;
}

template <class T, class Unit>
__global__ void embed_kernel(EmbedArgs<T> args) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x, per_row = args.width / kSize, row = item / per_row;
  if (row < args.rows) embed_unit<T, Unit>(args, row, item % per_row * kSize, args.ids[row], args.places[row]);
}

template <class T, class Unit>
__global__ void embed_step_kernel(EmbedArgs<T> args, SearchState state, StepRows rows) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x, per_row = args.width / kSize, row = item / per_row;
  if (row >= args.rows) return;
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0 || state.done[slot]) return;
  embed_unit<T, Unit>(args, row, item % per_row * kSize, state.token[slot * rows.beams + row % rows.beams], state.length[slot]);
}

template <class T, int kPieces>
__global__ void norm_piece_kernel(NormArgs<T> args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  if (row >= args.rows) return;
  norm_pieces<T, kPieces>(args.x + row * args.x_stride, args.residual ? args.residual + row * args.residual_stride : nullptr, args.gain, args.bias,
                          args.out + row * args.out_stride, static_cast<int>(args.width), args.epsilon);
}

// Rows of any width and alignment.
template <class T>
__global__ void norm_row_kernel(NormArgs<T> args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= args.rows) return;
  const auto at = [&](std::int64_t i) {
    const float x = to_float(args.x[row * args.x_stride + i]);
    return args.residual ? x + to_float(args.residual[row * args.residual_stride + i]) : x;
  };
  float2 moment[1];
  moments(moment, args.width, args.epsilon, [&](const auto& add) {
    for (std::int64_t i = lane; i < args.width; i += kWarp) add(0, at(i));
  });
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    args.out[row * args.out_stride + i] = from_float<T>((at(i) - moment[0].x) * moment[0].y * args.gain[i] + args.bias[i]);
  }
}

template <class T>
__global__ void finish_kernel(FinishArgs<T> args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.columns) return;
  float y = activate(to_float(args.out[row * args.out_stride + column]), args.activation);
  if (args.residual) y += to_float(args.residual[row * args.residual_stride + column]);
  args.out[row * args.out_stride + column] = from_float<T>(y);
}

template <class T>
__global__ void convert_kernel(const float* in, T* out, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from_float<T>(in[i]);
}

// Whether rows of such widths and strides can be read in pieces of 16 bytes.
template <class T>
bool in_pieces(std::int64_t sizes, std::initializer_list<const void*> addresses) {
  std::uintptr_t all = static_cast<std::uintptr_t>(sizes) * sizeof(T);
  for (const void* address : addresses) all |= reinterpret_cast<std::uintptr_t>(address);
  return all % 16 == 0;
}

template <class T>
bool in_pieces(const EmbedArgs<T>& args) {
  return in_pieces<T>(args.width | args.table_stride | args.out_stride, {args.table, args.out}) && in_pieces<float>(args.positions_stride, {args.positions});
}

}  // namespace

template <class T>
void embed(const EmbedArgs<T>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const std::int64_t elements = args.rows * args.width;
  if (in_pieces(args)) embed_kernel<T, Piece<T>><<<blocks_for(elements / Piece<T>::kSize, kBlock), kBlock, 0, stream>>>(args);
  else embed_kernel<T, T><<<blocks_for(elements, kBlock), kBlock, 0, stream>>>(args);
}

template <class T>
void embed_step(const EmbedArgs<T>& args, const SearchState& state, const StepRows& rows, cudaStream_t stream) {
  const std::int64_t elements = args.rows * args.width;
  if (in_pieces(args)) embed_step_kernel<T, Piece<T>><<<blocks_for(elements / Piece<T>::kSize, kBlock), kBlock, 0, stream>>>(args, state, rows);
  else embed_step_kernel<T, T><<<blocks_for(elements, kBlock), kBlock, 0, stream>>>(args, state, rows);
}

template <class T>
void layer_norm(const NormArgs<T>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const unsigned grid = blocks_for(args.rows, kNormBlock / kWarp);
  const std::int64_t pieces = (args.width + kWarp * Piece<T>::kSize - 1) / (kWarp * Piece<T>::kSize);
  const bool aligned = in_pieces<T>(args.width | args.x_stride | args.out_stride | (args.residual ? args.residual_stride : 0), {args.x, args.residual, args.out, args.gain, args.bias});
  if (aligned && pieces <= 2) norm_piece_kernel<T, 2><<<grid, kNormBlock, 0, stream>>>(args);
  else if (aligned && pieces <= 8) norm_piece_kernel<T, 8><<<grid, kNormBlock, 0, stream>>>(args);
  else norm_row_kernel<<<grid, kNormBlock, 0, stream>>>(args);
}

template <class T>
void finish_rows(const FinishArgs<T>& args, cudaStream_t stream) {
  if (args.rows > 0) finish_kernel<<<dim3(static_cast<unsigned>(args.rows), blocks_for(args.columns, kBlock)), kBlock, 0, stream>>>(args);
}

template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t stream) {
  if (count > 0) convert_kernel<<<blocks_for(count, kBlock), kBlock, 0, stream>>>(in, out, count);
}

#define INSTANTIATE(T)                                                                       \
  template void embed<T>(const EmbedArgs<T>&, cudaStream_t);                                 \
  template void embed_step<T>(const EmbedArgs<T>&, const SearchState&, const StepRows&, cudaStream_t); \
  template void layer_norm<T>(const NormArgs<T>&, cudaStream_t);                             \
  template void finish_rows<T>(const FinishArgs<T>&, cudaStream_t);                          \
  template void convert<T>(const float*, T*, std::int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
