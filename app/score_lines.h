// Scores the lines of a run (--score-text, --score-pairs).
#pragma once

#include "app/beside.h"
#include "app/json_lines.h"
#include "app/ordered_output.h"
#include "app/report.h"
#include "engine/runner.h"
#include "models/model_file.h"

namespace xlate {

/// Loads the model, waits until the file has been verified, scores the lines until the input ends,
/// and keeps the figures in the record. A line of which a probability is not finite is scored once
/// more in float32. Throws Error if the device fails, or if such a probability is not finite
/// either.
void score_lines(RunRecord&, const ModelFile&, Beside<void>& verified, Backend&, SentenceInput&,
                 LineFields&, OrderedOutput&);

}  // namespace xlate
