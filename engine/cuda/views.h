// Defines the views that several families of kernels take. The launchers of a family are in the
// header of its folder. They take typed pointers, sizes and strides (in elements), and the stream
// last. They do not allocate memory, wait for the device, or hold state. T is float, __half or
// __nv_bfloat16. Letters are those of engine/backend.h. A group whose slot is negative is empty.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "engine/search_state.h"

namespace xlate::cuda {

/// Returns whether an address is a multiple of 16 bytes, as the address of a vector must be.
inline bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

/// Views rows of the residual stream (ResidualRows).
template <class T>
struct ResidualView {
  T* rounded;
  // It may be null.
  std::conditional_t<std::is_const_v<T>, const std::int8_t, std::int8_t>* low_bits;
  std::int64_t stride, low_bits_stride;
};

/// Views the pages of one layer (PagedCache in engine/batch.h).
struct CacheView {
  void* pages;  // [pages·page_tokens·keys_per_token, 2·D]
  const std::int32_t* table;
  std::int64_t pages_per_slot, page_tokens, keys_per_token;
};

/// Holds the rules of SearchRules as kernels take them.
struct RulesView {
  int beams;
  int beam_groups = 1;
  float diversity = 0;
  float length_penalty;
  EarlyStopping early_stopping;
  // `end` is the first end token, or −1. Most models have no other one.
  std::int32_t start, end, forced_end;
  bool renormalize;
  // Both arrays are on the device.
  const std::int32_t* never_chosen;
  int never_chosen_count;
  const std::int32_t* other_ends;
  int other_ends_count;
  // These are the row rules.
  std::int64_t min_length, no_repeat_ngram;
  float repetition_penalty;
  bool has_row_rules;
  // Tokens are drawn at random by `sampling`.
  bool samples;
  Sampling sampling;
};

/// Holds a token with its logit or log-probability. Larger values come first, and among equal ones
/// the smaller token.
struct TokenValue {
  float value;
  std::int32_t token;
};

/// Holds what the scan of a row's logits leaves.
struct RowCandidates {
  // [R, count]. These are log-probabilities, best first, and −∞ where there are fewer. They are NaN
  // where a logit of the row is +∞ or NaN.
  float* values;
  std::int32_t* tokens;  // [R, count]
  int count;
};

}  // namespace xlate::cuda
