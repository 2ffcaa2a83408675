// Refuses a run that would write over what it reads, or over what it has written.
#pragma once

#include "app/options.h"

namespace xlate {

/// Throws UsageError where an output is the model, an input or the other output. Files are told
/// apart as the system does, whatever their names; what is no regular file (/dev/null, a terminal,
/// a pipe) may serve for several. The output may be an input: it gets its name once all is read.
void check_file_conflicts(const Options&);

}  // namespace xlate
