// Does a whole run: loads the model, and reads, translates and writes the lines.
#pragma once

#include "app/console.h"
#include "app/report.h"

namespace xlate {

/// Does the run that `record.options` describe, and counts in `record`. Throws Error or ClosedPipe
/// if the run fails, after writing the output of all lines before the first one that is missing.
/// Returns early after a signal, with the same output written.
void translate(RunRecord& record, Console&);

}  // namespace xlate
