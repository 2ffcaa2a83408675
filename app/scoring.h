// Scores lines by themselves (--score-text), or given targets of sources (--score-pairs), in place
// of generating text.
#pragma once

#include "app/json_lines.h"
#include "app/options.h"
#include "app/ordered_output.h"
#include "app/report.h"
#include "engine/runner.h"
#include "models/model_file.h"

namespace xlate {

/// Returns whether lines are scored and nothing is generated.
inline bool scores_lines(const Options& options) {
  return options.score_text || options.score_pairs;
}

/// Fills in the lengths of the longest lines, and what a target is scored with. Throws UsageError
/// if the model cannot score such lines, or if an option was given that means nothing where no text
/// is generated.
void resolve_scoring(Options&, const ModelDescription&);

/// Returns the output of a line: the sum of the log-probabilities of its tokens and their number,
/// or the normalized score of a pair. With --output-format jsonl, `fields` is the beginning of its
/// object.
std::string format_score(double score, std::int64_t tokens, const Options&, std::string fields);

/// Loads the model, scores the lines until the input ends, and keeps the figures in the record.
/// Throws Error if the device fails, or if a probability is not finite.
void score_lines(RunRecord&, const ModelFile&, Backend&, SentenceInput&, LineFields&,
                 OrderedOutput&);

}  // namespace xlate
