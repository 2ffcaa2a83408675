// What a program is run over: the packed rows of whole sentences, or the rows of one decoding step
// with the caches that hold the tokens before. Letters are those of engine/backend.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/search_state.h"
#include "engine/tensor.h"

namespace xlate {

/// Whole sentences one behind the other, without padding: sentence b is rows [offsets[b], offsets[b
/// + 1]).
struct PackedRows {
  std::int64_t count = 0;                        // N
  const std::int32_t* ids = nullptr;             // [N], device
  const std::int32_t* positions = nullptr;       // [N], device: each token's place in its sentence
  std::span<const std::int32_t> offsets_host{};  // [B + 1]
  const std::int32_t* offsets = nullptr;         // [B + 1], device
};

/// One layer's keys and values, in pages of `page_tokens` tokens; page p of slot s is
/// table[s·pages_per_slot
/// + p]. A page is [page_tokens, lines, 2, D]: for each token and line its key, then its value.
/// Self-attention has a line per beam, cross-attention one for all of them.
struct PagedCache {
  Tensor pages;                         // [pages·page_tokens·lines, 2·D]
  const std::int32_t* table = nullptr;  // [S, pages_per_slot], device
  std::int64_t pages_per_slot = 0;
  std::int64_t page_tokens = 0;
  std::int64_t keys_per_token = 1;
};

/// Where a run's caches lie: one for each layer, in the layers' order. The layers of a kind share
/// one table.
struct PagedCaches {
  std::vector<PagedCache> cross;  // one line; empty where the model keeps no source keys
  std::vector<PagedCache> self;   // a line for each beam
  const std::int32_t* source_lengths =
      nullptr;  // [S], device: source tokens of each slot's sentence; null likewise
};

/// One decoding step of the hypotheses in some slots: the last token of each enters the network.
struct Step {
  const SearchState& state;
  StepRows rows;
  const PagedCaches& caches;
};

}  // namespace xlate
