// Embeds tokens in float32, whatever T is. A thread computes 16 bytes of a row, or one element
// where rows are not aligned.
#include "engine/cuda/device.cuh"
#include "engine/cuda/embedding/embedding.h"
#include "engine/cuda/norms/vectors.cuh"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;

// Embeds one vector of a row, or one element where rows are not aligned to vectors.
template <class T, class Unit>
__device__ void embed_unit(const EmbedArgs<T>& args, std::int64_t row, std::int64_t column,
                           std::int32_t id, std::int32_t token_position) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  const T* table = args.table + id * args.table_stride + column;
  const Floats<kSize> position =
      args.positions
          ? Floats<kSize>(args.positions + token_position * args.positions_stride + column)
          : Floats<kSize>();
  const ResidualRow<T> out = row_of(args.out, row);
  if constexpr (kSize > 1) {
    float values[kSize];
    unpack_vector<T>(values, load_vector(table));
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
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  const std::int64_t per_row = args.width / kSize, row = item / per_row;
  if (row < args.rows)
    embed_unit<T, Unit>(args, row, item % per_row * kSize, args.ids[row],
                        args.token_positions[row]);
}

template <class T, class Unit>
__global__ void embed_step_kernel(EmbedArgs<T> args, SearchState state, StepRows rows,
                                  const std::int32_t* before) {
  constexpr int kSize = static_cast<int>(sizeof(Unit) / sizeof(T));
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  const std::int64_t per_row = args.width / kSize, row = item / per_row;
  if (row >= args.rows) return;
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0 || state.done[slot]) return;
  embed_unit<T, Unit>(args, row, item % per_row * kSize,
                      state.token[slot * rows.beams + row % rows.beams],
                      state.length[slot] + (before ? before[slot] : 0));
}

template <class T>
bool all_vector_aligned(const EmbedArgs<T>& args) {
  return vector_aligned<T>(args.width | args.table_stride, {args.table}) &&
         vector_aligned(args.out) && vector_aligned<float>(args.positions_stride, {args.positions});
}

}  // namespace

template <class T>
void embed(const EmbedArgs<T>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const std::int64_t elements = args.rows * args.width;
  if (all_vector_aligned(args)) {
    embed_kernel<T, Vector16<T>>
        <<<blocks_for(elements / Vector16<T>::kSize, kBlock), kBlock, 0, stream>>>(args);
  } else {
    embed_kernel<T, T><<<blocks_for(elements, kBlock), kBlock, 0, stream>>>(args);
  }
}

template <class T>
void embed_step(const EmbedArgs<T>& args, const SearchState& state, const StepRows& rows,
                const std::int32_t* before, cudaStream_t stream) {
  const std::int64_t elements = args.rows * args.width;
  if (all_vector_aligned(args)) {
    const unsigned blocks = blocks_for(elements / Vector16<T>::kSize, kBlock);
    embed_step_kernel<T, Vector16<T>><<<blocks, kBlock, 0, stream>>>(args, state, rows, before);
  } else {
    embed_step_kernel<T, T>
        <<<blocks_for(elements, kBlock), kBlock, 0, stream>>>(args, state, rows, before);
  }
}

#define INSTANTIATE(T)                                                                  \
  template void embed<T>(const EmbedArgs<T>&, cudaStream_t);                            \
  template void embed_step<T>(const EmbedArgs<T>&, const SearchState&, const StepRows&, \
                              const std::int32_t*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
