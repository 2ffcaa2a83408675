// Gives the log-probabilities of texts by a model that is a decoder alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/runner.h"
#include "engine/workspace.h"
#include "models/model_file.h"
#include "models/network.h"

namespace xlate {

/// What a model says of a text of T tokens: the sum of the log-probabilities of all tokens but the
/// first, each given those before it.
struct ScoredText {
  Sentence sentence;
  double log_probability = 0;
  std::int64_t tokens = 0;  // T − 1
};

/// The sizes of a run.
struct ScoringOptions {
  std::int64_t batch_tokens = 1;  // the tokens of a batch, unless a single text has more
  std::int64_t pass_tokens = 1;   // the tokens over which the network is run at once
  std::int64_t longest = 1;       // the tokens of the longest text
};

/// Scores one run. The backend must outlive it.
class TextScorer {
 public:
  /// Loads the weights. Throws Error if the model has an encoder, if a tensor is missing or has
  /// another shape, or if the backend has too little memory.
  TextScorer(const ModelFile&, Backend&, const ScoringOptions&);

  using Done = std::function<void(std::vector<ScoredText>)>;
  /// Scores texts until the input ends or `stop` is set, and passes them to `done` in batches.
  /// Throws Error if the device fails, or if a log-probability is not finite.
  void run(SentenceInput&, const Done& done, const std::atomic<bool>& stop);
  /// Waits for the device and returns the statistics. Target tokens are those that were scored.
  RunnerStatistics statistics() const;

 private:
  /// Holds a batch whose log-probabilities are being computed and read.
  struct Batch {
    std::vector<Sentence> texts;
    std::unique_ptr<PendingRead> log_probabilities;
  };
  Batch begin(std::vector<Sentence>);
  std::vector<ScoredText> finish(Batch);

  Backend& backend_;
  std::unique_ptr<Queue> queue_;
  EmbeddingDescription embedding_;
  LoadedNetwork loaded_;
  ScoringOptions options_;
  Program program_;
  Workspace workspace_;
  Arena arrays_;
  RunnerStatistics statistics_;
};

}  // namespace xlate
