// Runner: decodes sentences by continuous batching. It fills free slots from a SentenceInput,
// advances the model and search by decoding steps, and hands over the sentences that are done.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/caches.h"
#include "engine/error.h"
#include "engine/policy.h"
#include "engine/runner_statistics.h"
#include "engine/search.h"
#include "engine/sequence_model.h"

namespace xlate {

/// A sentence to decode.
struct Sentence {
  std::int64_t line = 0;  // Lines are numbered from 0.
  // They are the ids of the source, end token included, or those of the prompt. There is at least
  // one.
  std::vector<std::int32_t> ids;
  // If it is not 0, a limit on the generated tokens besides the one that follows from the length.
  std::int32_t limit = 0;
  // If it is not −1, it takes the place of SearchRules::forced_first.
  std::int32_t forced_first = -1;
  // They are the ids with which the target begins, or those of a whole target, which is scored
  // (models/token_scorer.h).
  std::vector<std::int32_t> target{};
  // It is the number of the draw among those of the line, if tokens are drawn at random.
  std::int32_t draw = 0;
  // It is the number of this part or draw of the line, from 0, or −1 if the line is one sentence.
  std::int32_t part = -1;
};

/// A decoded sentence. The memory of its result is freed by the thread that makes text of it.
struct Decoded {
  Sentence sentence;
  // It has at least one hypothesis, unless SearchResult::not_finite() (RunnerOptions).
  SearchResult result;
  // The best hypothesis was cut at the limit, or its end was forced there.
  bool hit_limit = false;
};

/// Is thrown for a line of which search has found no hypothesis.
class NoContinuation : public Error {
 public:
  NoContinuation(const std::string& message, bool not_finite)
      : Error(message), not_finite(not_finite) {}
  // A logit was infinite or not a number, as far as it is known (SearchResult::not_finite).
  const bool not_finite;
};

/// A source of sentences, in the order in which they should be decoded.
class SentenceInput {
 public:
  virtual ~SentenceInput() = default;
  /// Returns the next sentence, which stays the next one until it is taken. Returns null at the end
  /// of the input, and if there is no sentence yet and `wait` is false.
  virtual const Sentence* next(bool wait) = 0;
  /// Removes and returns the sentence that next() returned last.
  virtual Sentence take() = 0;
};

/// How a run decodes. The limit of a sentence of S source tokens is min(max_length,
/// ⌊max_length_factor · S⌋ + 10) generated tokens. That of a prompt of S tokens is min(max_length,
/// context − S).
struct RunnerOptions {
  SearchRules rules;
  Policy policy;
  std::int64_t batch_tokens = 0;    // the budget: the largest number of source tokens in flight
  std::int64_t longest_source = 0;  // the source tokens of the longest sentence
  std::int64_t max_length = 512;
  double max_length_factor = 3;
  // If it is not 0, sources are prompts, and a prompt and what is generated have at most this many
  // tokens together. Every prompt must be shorter.
  std::int64_t context = 0;
  // No target begins with more given tokens, a forced first one included (Sentence::target).
  std::int64_t longest_prefix = 0;
  // Sentences of which a logit is +∞ or not a number are handed over without a hypothesis, and no
  // NoContinuation is thrown for them.
  bool hands_over_overflows = false;
  // For tests: if false, slots are filled only when all of them are free.
  bool refill = true;
};

/// Decodes one run. The backend and the model must outlive it.
class Runner {
 public:
  /// Allocates the slots, the caches and the state of search. Throws Error if the backend has too
  /// little memory, or if the number of beams is not allowed (Search).
  Runner(Backend&, SequenceModel&, const RunnerOptions&);
  ~Runner();

  /// Takes all sentences that the runner finds done at the same time. They are handed over in one
  /// call because many calls would keep the device waiting.
  using Done = std::function<void(std::vector<Decoded>)>;
  /// Decodes until the input ends or `stop` is set, and passes each sentence to `done`, in the
  /// order in which they are done. When `stop` is set, sentences in flight are dropped. Throws
  /// Error if the device fails, and NoContinuation if the model gives all continuations of a
  /// sentence a probability of zero, or one that is not a number. In the latter case it has passed
  /// on the other sentences that were done with that one.
  void run(SentenceInput&, const Done& done, const std::atomic<bool>& stop);
  /// Waits for the device and returns the statistics.
  RunnerStatistics statistics() const;
  /// Removes and returns the sentences that run() has taken from its input and not handed over,
  /// after it has thrown an exception. The runner cannot run again.
  std::vector<Sentence> take_unfinished();
  /// Returns the limit on the generated tokens of a sentence of this many source tokens.
  std::int64_t limit_of(std::int64_t source_tokens) const;
  /// Returns the limit on the generated tokens of this sentence.
  std::int32_t limit_of(const Sentence&) const;
  /// Returns how many given tokens the target of a sentence begins with.
  std::int64_t prefix_tokens(const Sentence&) const;
  /// Returns the queue of the decoding steps.
  Queue& queue() { return *queue_; }
  /// Returns the caches of the run.
  const Caches& caches() const { return *caches_; }

 private:
  struct Slot {
    bool free = true;
    Sentence sentence;
    std::int64_t first_step = 0;  // the value of now_ when the sentence got the slot
    std::int32_t limit = 0;
    // Only if there is one slot: how many steps of the sentence are in the statistics.
    std::int64_t counted = 0;
    std::int64_t waited = 0;  // It counts steps without pages.
    std::int64_t room = 0;    // The caches have pages for these target tokens.
    std::int64_t source_tokens() const { return static_cast<std::int64_t>(sentence.ids.size()); }
  };
  // A step whose outcome the host has not looked at.
  struct PendingStep {
    std::int64_t step;                  // the value of now_ before it
    std::unique_ptr<PendingRead> done;  // the done flag of each slot
  };
  // A batch that was encoded ahead. Its sentences from `next` on have no slot yet.
  struct Encoding {
    std::vector<Sentence> sentences;
    std::size_t next = 0;
    std::unique_ptr<Encoded> encoded;
    bool used_up() const { return next == sentences.size(); }
  };

  std::vector<std::int32_t> prefix_of(const Sentence&) const;
  std::int32_t forced_first_of(const Sentence&) const;
  void admit(SentenceInput&);
  bool encode_ahead(SentenceInput&);
  bool install();
  /// Starts the sentences of these slots.
  void start(const std::vector<std::int32_t>& slots);
  /// Returns the largest number of steps that one call of Backend::repeat may run. It is more than
  /// one only if there is one slot.
  std::int64_t steps_at_once() const;
  /// Chooses the sentences that take part in the next steps, and reserves their pages. Sentences
  /// for which there are no pages wait until others are done. If too many would wait, the sentences
  /// that began last are preempted.
  void choose_rows(std::int64_t steps);
  bool reserve_pages(std::int32_t slot, std::int64_t steps);
  void preempt_for_rows(std::int64_t steps);
  /// Returns the number of steps that were enqueued for the sentence of a slot, or more if it has
  /// reached its limit. If it is done before, some of them were not run.
  std::int64_t steps_of(const Slot& slot) const { return now_ - slot.first_step - slot.waited; }
  bool at_limit(const Slot& slot) const { return steps_of(slot) >= slot.limit; }
  void leave(std::int32_t slot, bool done);
  void advance(std::int64_t steps);
  void step(std::int64_t most);
  void settle(const Done& done);
  Decoded finish(std::int64_t slot, SearchResult);

  Backend& backend_;
  SequenceModel& model_;
  RunnerOptions options_;
  std::unique_ptr<Queue> queue_, encoder_queue_;
  std::unique_ptr<Caches> caches_;
  std::unique_ptr<Search> search_;
  Buffer rows_device_;  // [S]: the slots of a step's row groups; −1 for an empty group
  std::vector<std::int32_t> active_;  // They are those in use, as they were taken.
  // The first have the row groups of the next step, and the second are those that rows_device_ has.
  std::vector<std::int32_t> rows_, rows_told_;
  std::deque<std::int32_t> waiting_;  // They wait for pages, as in active_.
  std::vector<Slot> slots_;
  std::vector<std::int32_t> free_;  // the free slots
  Encoding ahead_;
  std::vector<Sentence> preempted_;  // They are decoded again from their start.
  std::deque<PendingStep> pending_steps_;
  std::int64_t now_ = 0;  // It counts the steps enqueued so far.
  // The largest number of source tokens of an encoder batch of several sentences.
  std::int64_t encoder_tokens_ = 0;
  std::int64_t tokens_in_flight_ = 0;  // source tokens
  // Because the caches were full, sentences with this number of source tokens must leave before
  // others get slots.
  std::int64_t awaited_ = 0;
  RunnerStatistics statistics_;
};

}  // namespace xlate
