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

/// Views the keys and values of sources, packed one behind the other. The source of sentence b has
/// the rows from offsets[b] up to, but not including, offsets[b+1].
struct PackedSourceKeys {
  Tensor keys_values;  // [M, layers·2·A]: for each layer the key and then the value
  std::span<const std::int32_t> offsets_host{};  // [B + 1], host
  const std::int32_t* offsets = nullptr;         // [B + 1], device
};

/// Whole sentences, packed one behind the other without padding. Sentence b has the rows from
/// offsets[b] up to, but not including, offsets[b+1]. A batch of prompts may be read in several
/// passes, which have consecutive rows of it. Then the arrays of ids and positions begin with the
/// first row of the pass, but the offsets are those of the whole batch.
struct PackedRows {
  std::int64_t count = 0;                        // N
  const std::int32_t* ids = nullptr;             // [N], device
  const std::int32_t* positions = nullptr;       // [N], device; the first token of a sentence has 0
  std::span<const std::int32_t> offsets_host{};  // [B + 1], host
  const std::int32_t* offsets = nullptr;         // [B + 1], device
  std::int64_t first = 0;                        // the row of the batch with which a pass begins
  // The sentences attend to these sources. It is null if they have none.
  const PackedSourceKeys* sources = nullptr;
};

/// The keys and values of one layer, in pages of `page_tokens` tokens. The page table gives the
/// number of each page: page p of slot s is table[s·pages_per_slot+p]. For each token and each of
/// its keys, a page has the key and then the value, so that its shape is [page_tokens,
/// keys_per_token, 2, A], where A is Attention::key_width(). `keys_per_token` is the number of
/// beams in a self cache, and 1 in a cross cache or a shared one, whose keys all beams share.
struct PagedCache {
  Tensor pages;                         // [pages·page_tokens·keys_per_token, 2·A]
  const std::int32_t* table = nullptr;  // [S, pages_per_slot], device
  std::int64_t pages_per_slot = 0;
  std::int64_t page_tokens = 0;
  std::int64_t keys_per_token = 1;
};

/// The caches of a run, one of each kind for each layer, in the order of the layers. All caches of
/// a kind have the same page table.
struct PagedCaches {
  // They hold the keys of the source for cross-attention. It is empty in a model without a source.
  std::vector<PagedCache> cross;
  // They hold the keys of the tokens from the start token on.
  std::vector<PagedCache> self;
  // [S], device: the number of tokens of each slot that have keys in the cross caches or in the
  // shared ones. It is null if the model has neither.
  const std::int32_t* source_lengths = nullptr;
  // They hold the keys of a prompt but for its last token, which is the start token. Self-attention
  // reads them before those of the self caches. It is empty in a model that takes no prompts.
  std::vector<PagedCache> shared{};

  /// Returns the number of tokens of each slot that stand before the start token, or null if the
  /// start token always stands at position 0.
  const std::int32_t* tokens_before() const { return shared.empty() ? nullptr : source_lengths; }
};

/// One decoding step of the hypotheses in the slots that `rows` lists. The last token of each
/// hypothesis enters the network.
struct Step {
  const SearchState& state;
  StepRows rows;
  const PagedCaches& caches;
};

}  // namespace xlate
