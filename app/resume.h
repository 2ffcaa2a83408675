// Goes on with the output that an earlier run has left unfinished (--resume), and begins the
// journal that makes this possible.
#pragma once

#include "app/console.h"
#include "app/line_reader.h"
#include "app/output_file.h"
#include "app/report.h"

namespace xlate {

/// Throws UsageError if the run is to go on with an output that cannot be continued.
void check_resume(const Options&);

/// Begins the journal of the output. If there is output of an earlier run to go on with, reads over
/// the lines that it belongs to, counts them in record.resumed_lines, and cuts off what lies behind
/// it. Options, model and device of the record must be filled in. `prefixes` has the lines of
/// --target-prefix, or is null. Throws Error if the earlier run was not the same as this one. The
/// file stays as it is then. Returns false if a signal came.
bool begin_output(RunRecord&, OutputFile&, LineReader&, LineReader* prefixes, Console&);

}  // namespace xlate
