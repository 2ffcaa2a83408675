// Scores lines by themselves (--score-text) in place of continuing them.
#pragma once

#include "app/json_lines.h"
#include "app/options.h"
#include "app/ordered_output.h"
#include "app/report.h"
#include "engine/runner.h"
#include "models/model_file.h"

namespace xlate {

/// Fills in the length of the longest line. Throws UsageError if the model has an encoder, or if an
/// option was given that means nothing where no text is generated.
void resolve_score_text(Options&, const ModelDescription&);

/// Returns the output of a line: the sum of the log-probabilities of its tokens, and their number.
/// With --output-format jsonl, `fields` is the beginning of its object.
std::string format_score(double log_probability, std::int64_t tokens, const Options&,
                         std::string fields);

/// Loads the model, scores the lines until the input ends, and keeps the figures in the record.
/// Throws Error if the device fails, or if a probability is not finite.
void score_text(RunRecord&, const ModelFile&, Backend&, SentenceInput&, LineFields&,
                OrderedOutput&);

}  // namespace xlate
