#include "app/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace xlate {
namespace {

// A signal handler has no other way to reach the run.
std::atomic<bool> stop{false};
std::atomic<int> received{0};
int wake[2] = {-1, -1};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void handle(int signal) {
  // A second one, of either kind, finds the default: it kills.
  struct sigaction kill {};
  kill.sa_handler = SIG_DFL;
  sigaction(SIGINT, &kill, nullptr);
  sigaction(SIGTERM, &kill, nullptr);
  // This one comes again with each second of the time that is left to end in.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXCPU, &ignore, nullptr);
  int none = 0;
  received.compare_exchange_strong(none, signal);
  stop = true;
  // Nothing could be done about a failure here; the flag is set.
  [[maybe_unused]] const auto written = write(wake[1], "", 1);
}

// `ulimit -t` sets both limits: at the hard one there is no signal that could be answered.
void leave_time_to_end() {
  rlimit limit{};
  if (getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_max == RLIM_INFINITY ||
      limit.rlim_cur < limit.rlim_max)
    return;
  const rlim_t seconds = std::clamp<rlim_t>(limit.rlim_max / 20, 1, 30);  // of all threads together
  if (limit.rlim_max <= seconds) return;
  limit.rlim_cur = limit.rlim_max - seconds;
  setrlimit(RLIMIT_CPU, &limit);
}

}  // namespace

void watch_signals() {
  if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) wake[0] = wake[1] = -1;
  for (const int number : {SIGINT, SIGTERM, SIGXCPU}) {
    struct sigaction action {
    }, before{};
    // What is ignored stays so: a shell's jobs in the background are not for Ctrl-C.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = handle;
    sigaction(number, &action, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
  leave_time_to_end();
}

std::atomic<bool>& stop_flag() { return stop; }
int signal_received() { return received; }
int signal_fd() { return wake[0]; }

}  // namespace xlate
