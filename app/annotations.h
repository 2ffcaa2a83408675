// Annotates decoded lines with the log-probabilities of their tokens and with the source tokens
// that these are aligned with (--token-scores, --alignments). Both are computed once more behind
// the search, for the hypotheses that are printed alone, so that the search costs nothing more.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "app/line_markup.h"
#include "app/options.h"
#include "engine/policy.h"
#include "engine/runner.h"
#include "models/description.h"
#include "models/network.h"
#include "models/token_scorer.h"

namespace xlate {

/// Returns whether lines are annotated.
inline bool annotates(const Options& options) {
  return options.token_scores || options.alignments || options.markup == MarkupKind::kHtml;
}
/// Returns whether all lines are annotated. If only markup needs it, lines without tags are not.
inline bool annotates_all(const Options& options) {
  return options.token_scores || options.alignments;
}

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
  /// `put_overflow` takes sentences of which a number is not finite when they are annotated, and
  /// may be empty: then they are an error. The other arguments must outlive the object. allocate()
  /// comes next.
  Annotator(const Options&, const ModelDescription&, const LineMarkup&, Put put,
            std::function<void(Sentence)> put_overflow);

  /// Allocates memory for a batch, in place of what the object had. The backend must outlive the
  /// object. Throws Error if it has too little memory.
  void allocate(const LoadedNetwork&, Backend&, const Policy&);
  /// Frees that memory. Sentences that are collected stay.
  void free() { scorer_.reset(); }

  /// Takes sentences without annotations, which the runner has decoded, and annotates all that are
  /// collected once they fill a batch. Those that need no annotation are passed on. Throws Error if
  /// the device fails, or has too little memory.
  void add(std::vector<AnnotatedLine>, Runner&);
  /// Annotates and passes on all sentences that are collected. Throws Error as add() does, and
  /// keeps them then.
  void flush(Runner&);

 private:
  class Hypotheses;

  Annotation annotation_of(const Sentence&, const Hypothesis&, ScoredSentence&,
                           const Runner&) const;

  const Options& options_;
  const ModelDescription& model_;
  const LineMarkup& markup_;
  const Put put_;
  const std::function<void(Sentence)> put_overflow_;
  Backend* backend_ = nullptr;
  std::int64_t batch_tokens_ = 0;
  std::optional<TokenScorer> scorer_;
  std::vector<AnnotatedLine> lines_;
  // It counts the tokens of the hypotheses of `lines_`, or of their sources if these have more.
  std::int64_t tokens_ = 0;
};

}  // namespace xlate
