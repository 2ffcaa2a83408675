// A whole run: the model is loaded, lines are read, translated and written, in order.
#pragma once

#include "app/console.h"
#include "app/report.h"

namespace xlate {

/// Runs what `record.options` say, and counts in `record`. Throws Error, or ClosedPipe, after the
/// complete prefix of the output has been written; returns early, with the same, after a signal.
void translate(RunRecord& record, Console&);

}  // namespace xlate
