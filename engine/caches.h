// Caches: the pages of a run's keys and values, who has which, what the device is told of it, and
// how many will be needed. Letters: S slots, K beams. "Source keys" are those of a source's tokens,
// "own keys" those of the target tokens of each beam.
#pragma once

#include <cstdint>
#include <iterator>
#include <vector>

#include "engine/backend.h"
#include "engine/pages.h"
#include "engine/policy.h"
#include "engine/sequence_model.h"
#include "engine/table_update.h"

namespace xlate {

/// A slot's sentence gets pages for its source at once and pages for its target as it grows.
/// Whether another sentence may begin is decided by a forecast of the pages in use at each step to
/// come; how long targets become is learned from those that are done.
class Caches {
 public:
  /// Makes room for what the sentences in flight are expected to need, or for what the device's
  /// budget leaves, but always for one sentence of the longest kind. What else a model needs is to
  /// be allocated before. Throws Error where the device has too little.
  Caches(Backend&, const Policy&, const CacheShape&, const Capacity&);

  /// Source tokens of sentences in flight for which the device has memory; at least 1.
  static std::int64_t affordable_tokens(const Backend&, const Policy&, const CacheShape&,
                                        std::int64_t beams);

  /// The addresses stay as they are as long as the object lives.
  const PagedCaches& paged_caches() const { return paged_caches_; }

  /// Whether there is room for this sentence beside those admitted, as far as can be told
  /// beforehand. One sentence alone always fits.
  bool has_room(const SourceSentence&) const;
  /// Reserves a free slot's pages for a sentence that has room, until it is released.
  void reserve(std::int64_t slot, const SourceSentence&);
  /// Makes room for at least so many target tokens of a slot's sentence, within its limit. Returns
  /// for how many there is room now; 0 where the pages have run dry.
  std::int64_t extend(std::int64_t slot, std::int64_t tokens);
  /// Takes a slot's pages back; `done`: its sentence has been decoded, not only put off.
  void release(std::int64_t slot, bool done);
  /// So many steps have been asked for: sentences admitted have come nearer to their ends.
  void advance(std::int64_t steps) { forecast_.advance(steps); }
  /// Lets the device know what was reserved, extended and released: before the install() or step
  /// that needs it. A slot that was released is not reserved again before.
  void publish(Queue&);

  /// Target tokens that a sentence is expected to need, by what was learned so far; at most its
  /// limit.
  std::int64_t expected_tokens(const SourceSentence&) const;
  /// Pages that no sentence has, of the source's keys and of own keys.
  std::int64_t free_cross_pages() const { return cross_.pool.free(); }
  std::int64_t free_self_pages() const { return self_.pool.free(); }

 private:
  struct Keys {
    PagePool pool;
    Buffer memory, table;
    std::int64_t pages_per_slot = 0;
    std::vector<TableUpdate> changes;  // of the table, since it was last published
  };
  struct PageCounts {
    std::int64_t source = 0, own = 0;
  };

  PageCounts page_counts(const Capacity&) const;
  /// Allocates the pages of a pool, on so many lines, and a table for sentences of at most
  /// `longest` tokens. Returns each layer's view.
  std::vector<PagedCache> make(Keys&, std::int64_t slots, std::int64_t longest,
                               std::int64_t keys_per_token);
  /// Takes pages for so many tokens of a slot in all.
  static void take(Keys&, std::int64_t slot, std::int64_t tokens);
  /// Tokens of a source whose keys are kept.
  std::int64_t source_tokens(const SourceSentence& source) const {
    return shape_.cross_keys ? std::ssize(source.ids) : 0;
  }
  /// Pages of own keys that a sentence is expected to fill.
  std::int64_t expected_pages(const SourceSentence& source) const {
    return self_.pool.pages_for(expected_tokens(source));
  }

  Backend& backend_;
  Policy policy_;
  CacheShape shape_;
  Buffer source_lengths_;  // [S]
  std::vector<std::int32_t> source_lengths_host_;
  bool lengths_changed_ = false;
  Keys cross_, self_;
  PagedCaches paged_caches_;
  PageForecast forecast_;                     // of own keys' pages
  double tokens_read_ = 0, steps_taken_ = 0;  // by sentences decoded lately
};

}  // namespace xlate
