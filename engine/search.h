// Search: owns the state of search over the sentences in flight on a backend, advances it, and
// copies the hypotheses of sentences that are done to the host. docs/search.md says exactly what
// the rules mean. In shapes K is the number of beams, and D the model width.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/search_state.h"

namespace xlate {

/// One possible translation of a sentence.
struct Hypothesis {
  std::vector<std::int32_t> ids;  // with the prefix, but without start and end token
  float score = 0;                // sum / length^A, where A is SearchRules::length_penalty
  float sum = 0;                  // the sum of the log-probabilities
  std::int32_t length = 0;        // tokens behind the prefix, end token included if there is one
  bool ended = false;             // by an end token; otherwise it was cut at the limit
  std::int32_t end = -1;          // the end token, if it has ended
};

/// The result of a sentence that is done, as a record copied from the device (SearchRecord). The
/// back-pointers are followed only when hypotheses() is called, which any thread may do. If the
/// runner's thread followed them, the device would wait when many sentences end with one step.
class SearchResult {
 public:
  /// `record` points into `memory`, which this object keeps alive.
  SearchResult(std::shared_ptr<const std::byte[]> memory, const SearchRecord* record,
               std::int64_t beams, std::shared_ptr<const std::vector<std::int32_t>> ends)
      : memory_(std::move(memory)), record_(record), beams_(beams), ends_(std::move(ends)) {}

  /// Returns the number of decoding steps until the sentence was done.
  std::int32_t steps() const { return record_->length; }
  /// Returns the number of hypotheses. It is 0 if no continuation had a finite score.
  std::int32_t count() const { return std::max(record_->finished_count, 0); }
  /// Returns whether search ended because of a logit that is +∞ or not a number. Then there is no
  /// hypothesis.
  bool not_finite() const { return record_->finished_count == kNotFinite; }
  /// Returns the length of the best hypothesis (Hypothesis::length). There must be one.
  std::int32_t best_length() const { return finished()->length - record_->prefix_tokens; }
  /// Returns whether the best hypothesis ended by an end token. There must be one.
  bool best_ended() const { return has_ended(*finished()); }
  /// Returns up to `most` hypotheses, best first.
  std::vector<Hypothesis> hypotheses(std::int32_t most = kMaxBeams) const;

 private:
  const Finished* finished() const { return reinterpret_cast<const Finished*>(record_ + 1); }
  bool has_ended(const Finished&) const;
  Hypothesis trace(const Finished&) const;

  std::shared_ptr<const std::byte[]> memory_;
  const SearchRecord* record_;
  std::int64_t beams_;
  std::shared_ptr<const std::vector<std::int32_t>> ends_;
};

/// The host's side of search. Its functions enqueue work on the queue of the steps and do not wait,
/// except collect(). They throw Error if the device fails.
class Search {
 public:
  /// Allocates the state of `slots` sentences of at most `longest` tokens, which continue prompts
  /// of at most `longest_before` tokens besides their last ones, and begin with at most
  /// `longest_prefix` given tokens, which `longest` counts. Steps will be enqueued on the queue.
  /// Throws Error if the number of beams is not from 1 to kMaxBeams, if there are more than
  /// kMaxEnds end tokens, or if the backend has too little memory.
  Search(Backend&, Queue&, const SearchRules&, std::int64_t slots, std::int64_t longest,
         std::int64_t longest_before = 0, std::int64_t longest_prefix = 0);

  /// Returns the bytes of device memory that each slot takes.
  static std::int64_t bytes_per_slot(const SearchRules&, std::int64_t longest,
                                     std::int64_t longest_before = 0,
                                     std::int64_t longest_prefix = 0);

  /// Returns the arrays on the device.
  const SearchState& state() const { return state_; }
  /// Returns the rules of the run.
  const SearchRules& rules() const { return rules_; }
  /// Starts a new sentence in each of the slots. `before` has, for each of them in turn, the ids of
  /// its prompt before the start token, and `prefixes` the given tokens behind it. Each of them may
  /// be empty if no sentence of the run has any.
  void start(std::span<const SlotStart> starts,
             std::span<const std::span<const std::int32_t>> before = {},
             std::span<const std::span<const std::int32_t>> prefixes = {});
  /// Advances the rows' sentences by one token: runs the program over the rows, and a step of
  /// search with its result.
  void step(const Program&, const Workspace&, const PagedCaches&, const StepRows&,
            const Projection&);
  /// Advances the rows' sentences by one token, with the last hidden rows [R, D] of a model that
  /// does not use programs, such as the table model of the tests.
  void step(Tensor hidden, const StepRows&, const Projection&);
  /// Enqueues a copy of the done flags, one std::int32_t for each slot, as they are behind the work
  /// enqueued so far.
  std::unique_ptr<PendingRead> read_done();
  /// Returns the queue of the steps.
  Queue& queue() { return queue_; }
  /// Copies the results of the slots, which must be done, and waits for the copy. The step that
  /// completed each sentence must have ended, because the copy is enqueued on a queue of its own.
  std::vector<SearchResult> collect(std::span<const std::int32_t> slots);

 private:
  // Allocates an array, which buffers_ owns.
  template <class T>
  T* carve(std::int64_t count);

  Backend& backend_;
  Queue& queue_;
  std::unique_ptr<Queue> reading_;  // for collect(), beside steps that are under way
  SearchRules rules_;
  std::shared_ptr<const std::vector<std::int32_t>> ends_;  // those of the rules, for the results
  SearchState state_;
  std::vector<Buffer> buffers_;
};

}  // namespace xlate
