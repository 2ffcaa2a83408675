// The batches that a program is run over: the packed rows of whole sentences (PackedRows), or the
// rows of one decoding step with the caches that hold the keys and values of earlier tokens (Step).
// The letters of shapes are those of engine/backend.h. B is the number of packed sentences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/search_state.h"
#include "engine/tensor.h"

namespace xlate {

/// Whole sentences, packed one behind the other without padding. Sentence b has the rows from
/// offsets[b] up to, but not including, offsets[b+1].
struct PackedRows {
  std::int64_t count = 0;                        // N
  const std::int32_t* ids = nullptr;             // [N], device
  const std::int32_t* positions = nullptr;       // [N], device; the first token of a sentence has 0
  std::span<const std::int32_t> offsets_host{};  // [B + 1], host
  const std::int32_t* offsets = nullptr;         // [B + 1], device
};

/// The keys and values of one layer, in pages of `page_tokens` tokens. The page table gives the
/// number of each page: page p of slot s is table[s·pages_per_slot+p]. For each token and each of
/// its keys, a page has the key and then the value, so that its shape is [page_tokens,
/// keys_per_token, 2, D]. `keys_per_token` is the number of beams in a self cache, and 1 in a cross
/// cache, which all beams share.
struct PagedCache {
  Tensor pages;                         // [pages·page_tokens·keys_per_token, 2·D]
  const std::int32_t* table = nullptr;  // [S, pages_per_slot], device
  std::int64_t pages_per_slot = 0;
  std::int64_t page_tokens = 0;
  std::int64_t keys_per_token = 1;
};

/// The caches of a run: a cross cache and a self cache for each layer, in the order of the layers.
/// All cross caches have the same page table, and so have all self caches.
struct PagedCaches {
  // It is empty if the model keeps no source keys.
  std::vector<PagedCache> cross;
  std::vector<PagedCache> self;
  // [S], device: the number of source tokens of each slot's sentence. It is null if the model keeps
  // no source keys.
  const std::int32_t* source_lengths = nullptr;
};

/// One decoding step of the hypotheses in the slots that `rows` lists. The last token of each
/// hypothesis enters the network.
struct Step {
  const SearchState& state;
  StepRows rows;
  const PagedCaches& caches;
};

}  // namespace xlate
