#include "app/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

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
  int none = 0;
  received.compare_exchange_strong(none, signal);
  stop = true;
  // Nothing could be done about a failure here; the flag is set.
  [[maybe_unused]] const auto written = write(wake[1], "", 1);
}

}  // namespace

void watch_signals() {
  if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) wake[0] = wake[1] = -1;
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction action {}, before {};
    // What is ignored stays so: a shell's jobs in the background are not for Ctrl-C.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = handle;
    sigaction(number, &action, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
}

std::atomic<bool>& stop_flag() { return stop; }
int signal_received() { return received; }
int signal_fd() { return wake[0]; }

}  // namespace xlate
