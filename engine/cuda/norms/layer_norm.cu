// Row-wise kernels: embedding, layer norm, what follows a product, conversion. A warp per row for the norm, a thread per 16 bytes or per
// element elsewhere; arithmetic in float32 whatever T is.
#include <initializer_list>

#include "engine/cuda/device.cuh"
#include "engine/cuda/kernels.h"
#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/products/activation.cuh"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kNormBlock = 128;  // its last wave of blocks is shorter

template <class T>
__device__ void store_value(const WideRow<T>& out, std::int64_t column, float exact) {
  const T rounded = from_float<T>(exact);
  out.rounded[column] = rounded;
  if (out.rest) out.rest[column] = cut_rest(rest_of<T>(exact, to_float(rounded)));
}

// One piece of a row, or, where rows are not aligned to pieces, one element.
template <class T, class Unit>
__device__ void embed_unit(const EmbedArgs<T>& args, std::int64_t row, std::int64_t column, std::int32_t id, std::int32_t place) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  const T* table = args.table + id * args.table_stride + column;
  const Floats<kSize> position(args.positions + place * args.positions_stride + column);
  const WideRow<T> out = row_of(args.out, row);
  if constexpr (kSize > 1) {
    float values[kSize];
    unpack_piece<T>(values, load_piece(table));
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] = fmaf(values[i], args.scale, position.values[i]);
    store_values(out, static_cast<int>(column), values);
  } else {
    store_value(out, column, fmaf(to_float(*table), args.scale, position.values[0]));
  }
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

template <class T, class X, int kPieces>
__global__ void norm_piece_kernel(NormArgs<T, X> args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  if (row >= args.rows) return;
  norm_pieces<T, X, kPieces>(args.x + row * args.x_stride, args.x_bias, row_of(args.residual, row), args.gain, args.bias, row_of(args.out, row), static_cast<int>(args.width), args.epsilon);
}

// Rows of any width and alignment.
template <class T, class X>
__global__ void norm_row_kernel(NormArgs<T, X> args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * kNormBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= args.rows) return;
  const WideRow<const T> added = row_of(args.residual, row);
  const WideRow<T> out = row_of(args.out, row);
  const auto at = [&](std::int64_t i) {
    float x = to_float(args.x[row * args.x_stride + i]);
    if (args.x_bias) x += to_float(args.x_bias[i]);
    return added.rounded ? x + widened<T>(to_float(added.rounded[i]), added.rest ? added.rest[i] : 0) : x;
  };
  float2 moment[1];
  moments(moment, args.width, args.epsilon, [&](const auto& add) {
    for (std::int64_t i = lane; i < args.width; i += kWarp) add(0, at(i));
  });
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    store_value(out, i, (at(i) - moment[0].x) * moment[0].y * args.gain[i] + args.bias[i]);
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

// Rests, in pieces of half the bytes; nothing is in them, too.
template <class T>
bool in_pieces(const Wide<T>& wide) {
  return in_pieces<T>(wide.rounded ? wide.stride : 0, {wide.rounded}) && (!wide.rest || (wide.rest_stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(wide.rest) % 8 == 0));
}

template <class T>
bool in_pieces(const EmbedArgs<T>& args) {
  return in_pieces<T>(args.width | args.table_stride, {args.table}) && in_pieces(args.out) && in_pieces<float>(args.positions_stride, {args.positions});
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

template <class T, class X>
void layer_norm(const NormArgs<T, X>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const unsigned grid = blocks_for(args.rows, kNormBlock / kWarp);
  const std::int64_t pieces = (args.width + kWarp * Piece<T>::kSize - 1) / (kWarp * Piece<T>::kSize);
  const bool aligned = in_pieces<T>(args.width | args.x_stride, {args.x, args.x_bias, args.gain, args.bias}) && in_pieces(args.residual) && in_pieces(args.out);
  if (aligned && pieces <= 2) norm_piece_kernel<T, X, 2><<<grid, kNormBlock, 0, stream>>>(args);
  else if (aligned && pieces <= 8) norm_piece_kernel<T, X, 8><<<grid, kNormBlock, 0, stream>>>(args);
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
  template void layer_norm<T>(const NormArgs<T, T>&, cudaStream_t);                          \
  template void finish_rows<T>(const FinishArgs<T>&, cudaStream_t);                          \
  template void convert<T>(const float*, T*, std::int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
template void layer_norm<__half>(const NormArgs<__half, float>&, cudaStream_t);
template void layer_norm<__nv_bfloat16>(const NormArgs<__nv_bfloat16, float>&, cudaStream_t);

}  // namespace xlate::cuda
