// Caches: the key-value caches of a run. They own the memory of the pages, decide which slot has
// which pages, copy the page tables to the device, and forecast how many pages will be needed. The
// cross caches hold the keys and values of source tokens, the shared caches those of prompts, and
// the self caches those of the target tokens of each beam. A model has cross caches, shared ones or
// neither. In shapes S is the number of slots and K of beams.
#pragma once

#include <cstdint>
#include <iterator>
#include <vector>

#include "engine/backend.h"
#include "engine/length_line.h"
#include "engine/pages.h"
#include "engine/policy.h"
#include "engine/sequence_model.h"
#include "engine/table_update.h"

namespace xlate {

/// A slot's sentence gets all pages for its source when it begins, and pages for its target as this
/// grows. A forecast of the pages in use at each later step decides whether another sentence may
/// begin. How long targets become is learned from the sentences that have been decoded.
class Caches {
 public:
  /// Allocates pages for what the sentences in flight are expected to need. The self caches get at
  /// most what the backend's cache_budget() leaves, but always enough for one sentence of the
  /// longest kind. All other memory of the model must have been allocated before. Throws Error if
  /// the device has too little memory.
  Caches(Backend&, const Policy&, const CacheShape&, const Capacity&);

  /// Returns the number of source tokens that can be in flight in the memory of the device. It is
  /// at least 1.
  static std::int64_t affordable_tokens(const Backend&, const Policy&, const CacheShape&,
                                        std::int64_t beams);

  /// Returns the bytes of the pages and of their tables.
  std::int64_t bytes() const { return bytes_; }
  /// Returns views of the caches, whose addresses do not change as long as this object lives.
  const PagedCaches& paged_caches() const { return paged_caches_; }

  /// Returns whether there is room for this sentence beside those in flight, as far as the forecast
  /// can tell. There always is for a sentence that is alone.
  bool has_room(const SourceSentence&) const;
  /// Gives a free slot all pages for the source of a sentence for which has_room() is true, and the
  /// first page for its target.
  void reserve(std::int64_t slot, const SourceSentence&);
  /// Gives a slot's sentence enough pages for `tokens` target tokens in all, which must not be more
  /// than its limit. Returns the number of target tokens for which it has pages now. Returns 0, and
  /// changes nothing, if too few pages are free.
  std::int64_t extend(std::int64_t slot, std::int64_t tokens);
  /// Takes a slot's pages back. `done` says that its sentence has been decoded, so that its length
  /// is learned. A sentence that is preempted is not done.
  void release(std::int64_t slot, bool done);
  /// Says that this many decoding steps have been enqueued, by which the sentences in flight have
  /// come nearer to their ends.
  void advance(std::int64_t steps) { forecast_.advance(steps); }
  /// Says that the slot's sentence has not taken part in the last steps, and ends later by as many.
  void delay(std::int64_t slot, std::int64_t steps) { forecast_.delay(slot, steps); }
  /// Enqueues the changes that reserve() and extend() have made to the page tables and source
  /// lengths. It must be called before the install() or the step that needs them, and before a slot
  /// that was released is reserved again, because an update must not have an entry twice. Entries
  /// of slots that were released keep their old values.
  void publish(Queue&);

  /// Returns the number of target tokens that a sentence is expected to have, by what was learned
  /// so far of sentences with as many source tokens, or, if it is a prompt, of all prompts. It is
  /// at least 1, and at most the sentence's limit.
  std::int64_t expected_tokens(const SourceSentence&) const;
  /// Returns the number of free pages of the cross caches or of the shared ones.
  std::int64_t free_source_pages() const { return source_.pool.free(); }
  /// Returns the number of free pages of the self caches.
  std::int64_t free_self_pages() const { return self_.pool.free(); }

 private:
  // Holds the caches of one kind of all layers. A page has the same number in each layer.
  struct Keys {
    PagePool pool;
    Buffer memory, table;
    std::int64_t pages_per_slot = 0;
    std::vector<TableUpdate> changes;  // to the table, since it was last published
  };
  // PageCounts holds the numbers of pages of the cross caches or the shared ones, and of the self
  // caches.
  struct PageCounts {
    std::int64_t source = 0, own = 0;
  };

  PageCounts page_counts(const Capacity&) const;
  /// Allocates the pages of a pool, with `keys_per_token` keys and values for each token, and a
  /// page table for sentences of at most `longest` tokens. Returns a view for each layer.
  std::vector<PagedCache> make(Keys&, std::int64_t slots, std::int64_t longest,
                               std::int64_t keys_per_token);
  /// Gives a slot pages for `tokens` tokens in all, and notes the changes to the page table.
  static void take(Keys&, std::int64_t slot, std::int64_t tokens);
  /// Returns the number of a sentence's source tokens whose keys are cached.
  std::int64_t cached_tokens(std::int64_t source_tokens) const {
    switch (shape_.source_keys) {
      case SourceKeys::kNone:
        return 0;
      case SourceKeys::kCross:
        return source_tokens;
      case SourceKeys::kShared:
        return source_tokens - 1;
    }
    return 0;
  }
  /// Returns the number of source tokens by which the length of a target is learned. All prompts
  /// count alike, because a continuation does not grow with its prompt.
  double learned_from(std::int64_t source_tokens) const {
    return shape_.source_keys == SourceKeys::kShared ? 0 : static_cast<double>(source_tokens);
  }
  /// Returns the number of pages of the self caches that a sentence is expected to fill.
  std::int64_t expected_pages(const SourceSentence& source) const {
    return self_.pool.pages_for(expected_tokens(source));
  }

  Backend& backend_;
  Policy policy_;
  CacheShape shape_;
  // These have, for the sentence in each slot, how many of its source tokens have cached keys, [S]
  // on the device and on the host.
  Buffer source_lengths_;
  std::vector<std::int32_t> source_lengths_host_;
  // It has, for the sentence in each slot, the number of all of its source tokens.
  std::vector<std::int32_t> source_tokens_;
  bool lengths_changed_ = false;
  // `source_` is the cross caches or the shared ones.
  Keys source_, self_;
  PagedCaches paged_caches_;
  std::int64_t bytes_ = 0;
  PageForecast forecast_;  // of the pages of the self caches
  // It has the steps that sentences decoded lately took, by their source tokens.
  LengthLine lengths_;
};

}  // namespace xlate
