// Runner: keeps slots filled from a source of sentences, steps the model and search, and hands over
// what is finished.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/caches.h"
#include "engine/policy.h"
#include "engine/search.h"
#include "engine/sequence_model.h"

namespace xlate {

/// A line to decode.
struct Sentence {
  std::int64_t line = 0;          // its number, from 0
  std::vector<std::int32_t> ids;  // source ids, end token included; at least one
  std::int32_t limit =
      0;  // of its own on generated tokens, where that is less than its length gives; 0: none
};

/// A line decoded. Whoever makes text of it frees its memory, too.
struct Decoded {
  Sentence sentence;
  SearchResult result;     // of at least one hypothesis
  bool hit_limit = false;  // the best one was cut, or its end forced, at the length limit
};

/// Where sentences come from, in the order in which they should be decoded.
class SentenceInput {
 public:
  virtual ~SentenceInput() = default;
  /// The next sentence, which stays the next one until it is taken; null at the end, or, where
  /// `wait` is false, if there is none yet.
  virtual const Sentence* next(bool wait) = 0;
  virtual Sentence take() = 0;
};

struct RunnerOptions {
  SearchRules rules;
  Policy policy;
  std::int64_t batch_tokens = 0;    // source tokens in flight
  std::int64_t longest_source = 0;  // no sentence is longer
  std::int64_t max_length =
      512;  // limit of a sentence of S tokens: min(max_length, ⌊factor·S⌋ + 10)
  double max_length_factor = 3;
  bool refill = true;  // false: plain batches, each decoded to its end; for tests
};

/// What a run did. Times are wall-clock seconds.
struct RunnerStatistics {
  static constexpr std::int64_t kBucketTokens = 8;
  struct Bucket {
    std::int64_t lines = 0, source_tokens = 0, target_tokens = 0, row_steps = 0;
  };
  std::int64_t source_tokens = 0;  // encoded
  std::int64_t target_tokens = 0;  // of best hypotheses, end tokens included
  std::int64_t target_tokens_without_end = 0;
  std::int64_t hit_limit = 0;
  std::int64_t batches = 0;    // encoder batches
  std::int64_t preempted = 0;  // sentences that left for want of cache and were decoded anew
  std::int64_t steps = 0, rows = 0, rows_useful = 0;
  WorkSeconds seconds;
  std::vector<Bucket> buckets;  // by source length: 1–8, 9–16, …
};

class Runner {
 public:
  Runner(Backend&, SequenceModel&, const RunnerOptions&);
  ~Runner();

  /// Called with sentences that were found decoded at the same time: handed over one by one they
  /// would keep a device waiting.
  using Done = std::function<void(std::vector<Decoded>)>;
  /// Decodes until the source ends or `stop` is set; each sentence decoded goes to `done`, in the
  /// order in which they finish.
  void run(SentenceInput&, const Done& done, const std::atomic<bool>& stop);
  /// Waits for the device.
  RunnerStatistics statistics() const;
  /// The limit on generated tokens of a sentence of so many source tokens.
  std::int64_t limit_of(std::int64_t source_tokens) const;
  const Caches& caches() const { return *caches_; }

 private:
  struct Slot {
    bool free = true;
    Sentence sentence;
    std::int64_t first_step = 0;
    std::int32_t limit = 0;
    std::int64_t counted = 0;  // of its steps, in the statistics: where there is one slot
    std::int64_t room = 0;     // target tokens for which its caches have room
    std::int64_t source_tokens() const { return static_cast<std::int64_t>(sentence.ids.size()); }
  };
  struct PendingStep {  // a step whose outcome has not been looked at
    std::int64_t step;
    std::unique_ptr<PendingRead> done;
  };

  struct Encoding {  // a batch encoded ahead: its sentences from `next` on have no slot yet
    std::vector<Sentence> sentences;
    std::size_t next = 0;
    std::unique_ptr<Encoded> encoded;
    bool used_up() const { return next == sentences.size(); }
  };

  std::int32_t limit_of(const Sentence&) const;
  void admit(SentenceInput&);
  bool encode_ahead(SentenceInput&);
  bool install();
  /// How many steps may run before their outcome is looked at: more than one where there is one
  /// slot.
  std::int64_t steps_at_once() const;
  /// Room in the caches for the steps to come; sentences admitted last begin again later where
  /// there is too little.
  void reserve_pages(std::int64_t steps);
  void preempt(std::int32_t slot);
  void leave(std::int32_t slot, bool done);
  void step(std::int64_t most);
  void settle(const Done& done);
  Decoded finish(std::int64_t slot, SearchResult);
  RunnerStatistics::Bucket& bucket_of(std::int64_t source_tokens);

  Backend& backend_;
  SequenceModel& model_;
  RunnerOptions options_;
  std::unique_ptr<Queue> queue_, encoder_queue_;
  std::unique_ptr<Caches> caches_;
  std::unique_ptr<Search> search_;
  Buffer active_device_;              // [S] slots of the step's row groups
  std::vector<std::int32_t> active_;  // the same on the host
  bool active_changed_ = false;
  std::vector<Slot> slots_;
  std::vector<std::int32_t> free_;  // slots
  Encoding ahead_;
  std::vector<Sentence> preempted_;  // to be begun again
  std::deque<PendingStep> pending_steps_;
  std::int64_t now_ =
      0;  // steps asked for so far; where a sentence is done early, some were not run
  std::int64_t encoder_tokens_ = 0;  // of an encoder batch of several sentences, at most
  std::int64_t tokens_in_flight_ = 0;
  std::int64_t awaited_ =
      0;  // source tokens of sentences that are to leave before others get slots: caches were full
  RunnerStatistics statistics_;
};

}  // namespace xlate
