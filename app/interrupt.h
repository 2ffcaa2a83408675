// SIGINT, SIGTERM, and SIGXCPU where the CPU time allowed is used up: the first asks the run to
// end, a second of the former two kills.
#pragma once

#include <atomic>

namespace xlate {

/// Installs the handlers, and ignores SIGPIPE: a closed pipe is then told by the write. Where a
/// limit on CPU time would kill at once, it asks to be told a little before.
void watch_signals();

/// Becomes true at the first signal; also set by the pipeline itself to end a run early.
std::atomic<bool>& stop_flag();

/// The signal that came first, or 0.
int signal_received();

/// Readable once a signal came: to be polled beside an input.
int signal_fd();

}  // namespace xlate
