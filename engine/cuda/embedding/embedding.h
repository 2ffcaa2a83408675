// Embedding of tokens.
#pragma once

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// out[i] = table[ids[i]]·scale + positions[place[i]], N rows of D.
template <class T>
struct EmbedArgs {
  const T* table;                       // [V, D]
  const float* positions;               // [P, D]
  const std::int32_t* ids;              // [N]
  const std::int32_t* token_positions;  // [N]
  ResidualView<T> out;                  // [N, D]
  std::int64_t rows, width, table_stride, positions_stride;
  float scale;
};
template <class T>
void embed(const EmbedArgs<T>&, cudaStream_t);
/// ids and places are the last tokens and lengths of the rows' slots.
template <class T>
void embed_step(const EmbedArgs<T>&, const SearchState&, const StepRows&, cudaStream_t);

}  // namespace xlate::cuda
