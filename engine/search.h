// Search: owns the state of the sentences in flight on a backend, advances it, and copies what
// finished sentences found to the host. What the settings mean, to the token, is said in
// docs/search.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/search_state.h"

namespace xlate {

struct Hypothesis {
  std::vector<std::int32_t> ids;  // without start and end token
  float score = 0;                // sum / length^A
  float sum = 0;                  // of the log-probabilities
  std::int32_t length = 0;        // generated tokens, end token included where there is one
  bool ended = false;             // by the end token; otherwise cut at the limit
};

/// What search left of a sentence that is done, copied from the device. Its tree is followed back
/// only when hypotheses are asked for, by any thread: where many sentences end with one step, the
/// device would wait for it.
class SearchResult {
 public:
  /// The record lies in `memory`.
  SearchResult(std::shared_ptr<const std::byte[]> memory, const SearchRecord* record,
               std::int64_t beams, std::int32_t end)
      : memory_(std::move(memory)), record_(record), beams_(beams), end_(end) {}

  /// Taken until the sentence was done.
  std::int32_t steps() const { return record_->length; }
  /// Hypotheses; none if no continuation had a finite score.
  std::int32_t count() const { return record_->finished_count; }
  /// Of the best one, of which there is one.
  std::int32_t best_length() const { return finished()->length; }
  bool best_ended() const { return finished()->last.token == end_; }
  /// Best first, up to `most` of them.
  std::vector<Hypothesis> hypotheses(std::int32_t most = kMaxBeams) const;

 private:
  const Finished* finished() const { return reinterpret_cast<const Finished*>(record_ + 1); }

  std::shared_ptr<const std::byte[]> memory_;
  const SearchRecord* record_;
  std::int64_t beams_;
  std::int32_t end_;
};

class Search {
 public:
  /// Room for `slots` sentences of at most `longest` tokens. Throws Error for more than kMaxBeams
  /// beams.
  Search(Backend&, Queue&, const SearchRules&, std::int64_t slots, std::int64_t longest);

  /// Device memory that each slot takes.
  static std::int64_t bytes_per_slot(std::int64_t beams, std::int64_t longest);

  const SearchState& state() const { return state_; }
  const SearchRules& rules() const { return rules_; }
  /// A new sentence in each of the slots, at most limits[i] tokens.
  void start(std::span<const std::int32_t> slots, std::span<const std::int32_t> limits);
  /// One token more for each of the rows' sentences, by the network that a program is.
  void step(const Program&, const Workspace&, const PagedCaches&, const StepRows&,
            const Projection&);
  /// The same by hidden rows [R, D] of a model that is no program, as the table of the tests.
  void step(Tensor hidden, const StepRows&, const Projection&);
  /// Each slot's done flag (int32) as it is when the queue gets there.
  std::unique_ptr<PendingRead> read_done();
  /// The queue that its steps are enqueued on.
  Queue& queue() { return queue_; }
  /// What each of the slots, which are done, has found.
  std::vector<SearchResult> collect(std::span<const std::int32_t> slots);

 private:
  template <class T>
  T* carve(std::int64_t count);

  Backend& backend_;
  Queue& queue_;
  std::unique_ptr<Queue> reading_;  // beside the steps that are under way
  SearchRules rules_;
  SearchState state_;
  std::vector<Buffer> buffers_;
};

}  // namespace xlate
