// Handles SIGINT, SIGTERM, SIGHUP, which comes when a terminal is closed, and SIGXCPU, which comes
// when the allowed CPU time is used up. The first of these signals asks the run to end. A SIGINT or
// SIGTERM after it ends the process at once. Also handles SIGBUS, which comes when the mapped model
// file can no longer be read.
#pragma once

#include <atomic>

namespace xlate {

/// Installs the handlers. Ignores SIGPIPE, so that the write into a closed pipe fails instead. If a
/// limit on CPU time would kill the process without warning, lowers the soft limit, so that SIGXCPU
/// comes a little before.
void watch_signals();

/// Returns the flag that the first signal sets. The pipeline also sets it to end a run early.
std::atomic<bool>& stop_flag();

/// Returns the number of the signal that came first, or 0 if none came.
int signal_received();

/// Returns a descriptor that becomes readable at the first signal and stays so, to be polled
/// together with an input. It is −1 if there is none.
int signal_fd();

/// Returns whether a page of the mapped model could not be read, because the file was cut short or
/// its disk failed. The run has been asked to end then, and what has been computed since then is
/// wrong.
bool model_lost();

}  // namespace xlate
