// Gives the log-probabilities of the tokens of given targets and texts, and the source tokens that
// cross-attention aligns them with.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/head_set.h"
#include "engine/runner.h"
#include "engine/workspace.h"
#include "models/network.h"
#include "models/packed_sources.h"
#include "models/programs.h"
#include "models/sinusoids.h"

namespace xlate {

/// A sentence whose tokens have been scored. If the model has an encoder, these are the tokens of
/// Sentence::target, given the source. Otherwise they are those of the target, given the prompt,
/// or, if there is no target, all tokens of the sentence but the first.
struct ScoredSentence {
  Sentence sentence;
  // Each is the logarithm of the probability of a token, given those before it. It is empty unless
  // ScoringOptions ask for it.
  std::vector<float> log_probabilities;
  // These are the numbers of the source tokens with which the tokens behind the start token are
  // aligned, a forced first one included. It is empty unless ScoringOptions ask for it.
  std::vector<std::int32_t> aligned{};
  // A log-probability is not finite (ScoringOptions::hands_over_overflows), and both lists are
  // empty.
  bool not_finite = false;
};

/// Says how large the batches of a run are.
struct ScoringOptions {
  std::int64_t batch_tokens = 1;  // of a batch of sentences, unless a single one has more
  std::int64_t pass_tokens = 1;   // the tokens over which a decoder is run at once
  // They count the ids of the longest source, prompt or text, and of the longest target.
  std::int64_t longest_source = 1, longest_target = 0;
  // It stands before every target of a model with an encoder, and after it the forced first token
  // of the sentence, or this one. A forced token is not scored. −1 means that there is none.
  std::int32_t start = 0, forced_first = -1;
  std::int32_t end = -1;  // A target that ends with this token has one token less without it.
  bool log_probabilities = true;
  // Tokens are aligned by cross-attention of this layer of the decoder, from 0, on average over
  // these heads. −1 means that they are not aligned.
  std::int64_t alignment_layer = -1;
  HeadSet alignment_heads{};
  // Sentences of which a log-probability is not finite are handed over without any, and no error is
  // thrown for them.
  bool hands_over_overflows = false;
};

/// Scores one run. The backend must outlive it.
class TokenScorer {
 public:
  /// Uses the weights of a network, which others may use as well. Throws Error if the backend has
  /// too little memory.
  TokenScorer(LoadedNetwork, Backend&, const ScoringOptions&);

  using Done = std::function<void(std::vector<ScoredSentence>)>;
  /// Scores sentences until the input ends or `stop` is set, and passes them to `done` in batches.
  /// Throws Error if the device fails, or if a log-probability is not finite, unless such
  /// sentences are handed over. Throws OutOfMemory if the memory runs out.
  void run(SentenceInput&, const Done& done, const std::atomic<bool>& stop);
  /// Returns the sentences that were not passed to `done`, in order, after run() has thrown
  /// OutOfMemory. After that the object must not be used for anything but its statistics.
  std::vector<Sentence> take_unfinished();
  /// Returns the queue on which sentences are scored.
  Queue& queue() { return *queue_; }
  /// Waits for the device and returns the statistics. Target tokens are those that were scored.
  RunnerStatistics statistics() const;

 private:
  /// Holds a batch whose log-probabilities are being computed and read.
  struct Batch {
    std::vector<Sentence> sentences;
    // Each has a number for each token that the decoder reads, and is null if none is wanted.
    std::unique_ptr<PendingRead> log_probabilities, aligned;
  };
  /// Returns the ids that the decoder reads and predicts of a sentence.
  std::vector<std::int32_t> decoder_ids(const Sentence&) const;
  /// Returns how many of these ids are given. The others are scored.
  std::int64_t given_ids(const Sentence&) const;
  std::int64_t tokens_read(const Sentence&) const;
  /// Computes the batch that was begun.
  void compute(Batch&);
  /// Aligns the rows of a pass, whose queries have been computed.
  void align(const PackedRows&, std::int32_t* out);
  /// Encodes the sources of a batch.
  PackedSourceKeys read_sources(const Batch&);
  std::vector<ScoredSentence> finish(Batch&);
  void count(const ScoredSentence&);

  Backend& backend_;
  std::unique_ptr<Queue> queue_;
  LoadedNetwork loaded_;
  ScoringOptions options_;
  std::int64_t longest_ = 0;  // No side of a sentence may have more tokens.
  Sinusoids sinusoids_;
  Program source_program_;
  ScoringProgram scoring_;
  Workspace source_workspace_, workspace_;
  Arena arrays_;
  // They are the sources of the batch that is being computed.
  PackedSources sources_;
  Batch computed_, begun_;  // Without sentences there is none. Both use the same memory.
  RunnerStatistics statistics_;
};

}  // namespace xlate
