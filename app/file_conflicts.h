// Refuses a run that would overwrite a file that it reads, or one that it writes.
#pragma once

#include "app/options.h"

namespace xlate {

/// Throws UsageError if the report or the output is the model, an input, or the same file as the
/// other one. Files are compared by their identity on the system, whatever their names. Anything
/// that is no regular file (/dev/null, a terminal, a pipe) may have several roles. The file that
/// --output names may be an input, since the output replaces it after everything is read; the file
/// to which stdout leads may not.
void check_file_conflicts(const Options&);

}  // namespace xlate
