// Views that several families of kernels take. Each family's launchers are in the header of its
// folder: they take typed pointers, sizes and strides (in elements), the stream last; they neither
// allocate, wait, nor hold state. T is float,
// __half or __nv_bfloat16. Letters are those of engine/backend.h; a group whose slot is negative is
// empty.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "engine/search_state.h"

namespace xlate::cuda {

/// Whether an address is a multiple of 16 bytes, a piece of a row as kernels read and write it.
inline bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

/// Rows of the residual stream (ResidualRows).
template <class T>
struct ResidualView {
  T* rounded;
  std::conditional_t<std::is_const_v<T>, const std::int8_t, std::int8_t>* low_bits;  // or null
  std::int64_t stride, low_bits_stride;
};

/// A layer's pages (engine/backend.h, PagedCache).
struct CacheView {
  void* pages;  // [pages·page_tokens·lines, 2·D]
  const std::int32_t* table;
  std::int64_t pages_per_slot, page_tokens, keys_per_token;
};

/// The fixed part of SearchRules, as kernels take it.
struct RulesView {
  int beams;
  float length_penalty;
  EarlyStopping early_stopping;
  std::int32_t start, end, forced_first, forced_end;
  bool renormalize;
  const std::int32_t* never_chosen;  // device
  int never_chosen_count;
};

/// A token and its logit; in order: larger values first, then smaller tokens.
struct TokenValue {
  float value;
  std::int32_t token;
};

/// What a row's pass over its logits leaves.
struct RowCandidates {
  float* values;         // [R, count] log-probabilities, best first; −∞ where there are fewer
  std::int32_t* tokens;  // [R, count]
  int count;
};

}  // namespace xlate::cuda
