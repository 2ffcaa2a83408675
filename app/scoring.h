// Checks the options of runs that score lines by themselves (--score-text), or given targets of
// sources (--score-pairs), in place of generating text.
#pragma once

#include "app/options.h"
#include "models/description.h"

namespace xlate {

/// Returns whether lines are scored and nothing is generated.
inline bool scores_lines(const Options& options) {
  return options.score_text || options.score_pairs;
}

/// Fills in the lengths of the longest lines, and what a target is scored with. Throws UsageError
/// if the model cannot score such lines, or if an option was given that means nothing where no text
/// is generated.
void resolve_scoring(Options&, const ModelDescription&);

}  // namespace xlate
