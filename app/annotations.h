// Annotates decoded lines with the log-probabilities of their tokens and with the source tokens
// that these are aligned with (--token-scores, --alignments). Both are computed once more behind
// the search, for the hypotheses that are printed alone, so that the search costs nothing more.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "app/options.h"
#include "engine/policy.h"
#include "engine/runner.h"
#include "models/description.h"
#include "models/network.h"
#include "models/token_scorer.h"

namespace xlate {

/// Returns whether lines are annotated.
inline bool annotates(const Options& options) { return options.token_scores || options.alignments; }

/// Checks the options of annotations, and fills in the layer and the heads. Throws UsageError if
/// the model has no such attention, or if an option needs another one.
void resolve_annotations(Options&, const ModelDescription&);

/// Holds the annotation of a hypothesis.
struct Annotation {
  // They are the log-probabilities of all tokens, end token included.
  std::vector<float> token_scores;
  // They are the numbers of the source tokens that the tokens but the end token are aligned with.
  std::vector<std::int32_t> aligned;
};

/// Holds a decoded sentence with the annotations of its hypotheses, best first. There are none if
/// lines are not annotated.
struct AnnotatedLine {
  Decoded decoded;
  std::vector<Annotation> annotations{};
};

/// Collects decoded sentences, annotates them in batches and passes them on. The thread that
/// decodes calls its functions.
class Annotator {
 public:
  using Put = std::function<void(std::vector<AnnotatedLine>)>;
  /// Allocates memory for a batch. The arguments must outlive the object, except the network.
  /// Throws Error if the backend has too little memory.
  Annotator(LoadedNetwork, Backend&, const Options&, const Policy&, const ModelDescription&,
            Put put);

  /// Decodes all sentences of the source and annotates them. Throws Error as Runner::run() does,
  /// after a NoContinuation with the other sentences passed on.
  void run(Runner&, SentenceInput& source, const std::atomic<bool>& stop);

 private:
  class Hypotheses;
  class Input;

  /// Takes sentences, and annotates all that are collected once they fill a batch.
  void add(std::vector<Decoded>);
  /// Annotates and passes on all sentences that are collected.
  void flush();

  Annotation annotation_of(const Sentence&, const Hypothesis&, ScoredSentence&) const;

  Backend& backend_;
  const Options& options_;
  const std::int64_t batch_tokens_;
  const std::int32_t forced_first_, forced_end_;
  const Put put_;
  TokenScorer scorer_;
  Runner* runner_ = nullptr;
  std::vector<AnnotatedLine> lines_;
  std::int64_t tokens_ =
      0;  // of the hypotheses of `lines_`, or of their sources if these have more
};

}  // namespace xlate
