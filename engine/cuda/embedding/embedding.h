// Declares the embedding of tokens.
#pragma once

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// out[i] = table[ids[i]]·scale + positions[token_positions[i]] for the N rows of D elements.
template <class T>
struct EmbedArgs {
  const T* table;                       // [V, D]
  const float* positions;               // [P, D] or null
  const std::int32_t* ids;              // [N]
  const std::int32_t* token_positions;  // [N]
  ResidualView<T> out;                  // [N, D]
  std::int64_t rows, width, table_stride, positions_stride;
  float scale;
};
template <class T>
void embed(const EmbedArgs<T>&, cudaStream_t);
/// Embeds the last token of each row's slot and beam, at the position that is the slot's length
/// plus before[slot], unless `before` is null. `ids` and `token_positions` of the arguments are not
/// read. Rows of empty groups and of slots that are done are left as they are.
template <class T>
void embed_step(const EmbedArgs<T>&, const SearchState&, const StepRows&,
                const std::int32_t* before, cudaStream_t);

}  // namespace xlate::cuda
