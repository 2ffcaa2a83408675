// Implements the signal handlers and what they leave for the run to see.
#include "app/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace xlate {
namespace {

// These are global because a signal handler has no other way to reach the run.
std::atomic<bool> stop{false};
std::atomic<int> received{0};
std::atomic<bool> lost{false};
std::uintptr_t page_bytes = 4096;
int wake[2] = {-1, -1};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void handle(int signal);

// Asks the run to end.
void request_stop() {
  stop = true;
  // If this fails, nothing more can be done here, and the flag is set anyway.
  [[maybe_unused]] const auto written = write(wake[1], "", 1);
}

// Gives a signal another action, unless it was ignored when the program began and so has no
// handler.
void replace_handler(int number, void (*action)(int)) {
  struct sigaction now {
  }, next{};
  if (sigaction(number, nullptr, &now) != 0 || now.sa_handler != handle) return;
  next.sa_handler = action;
  sigaction(number, &next, nullptr);
}

void handle(int signal) {
  const int error = errno;
  // The next SIGINT or SIGTERM meets the default action, which ends the process.
  replace_handler(SIGINT, SIG_DFL);
  replace_handler(SIGTERM, SIG_DFL);
  // A terminal that is closed sends SIGHUP more than once: the shell sends it, and the system does.
  replace_handler(SIGHUP, SIG_IGN);
  // SIGXCPU comes again with each second of CPU time between the soft limit and the hard one, which
  // the run needs to end.
  replace_handler(SIGXCPU, SIG_IGN);
  int none = 0;
  received.compare_exchange_strong(none, signal);
  request_stop();
  errno = error;
}

// Handles SIGBUS, which comes when a page of the mapped model cannot be read. The model is the only
// file that the program maps. A page of zeros takes the place of the lost one, so that the thread
// can go on until it sees that the run ends. The flag is set before, so that nothing that was made
// of zeros is written.
void handle_lost_page(int number, siginfo_t* info, void*) {
  if (info->si_code != BUS_ADRERR) {
    // It is not of a page, and may have been sent. It ends the process when this function returns.
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  const int error = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr) / page_bytes * page_bytes;
  lost = true;
  request_stop();
  if (mmap(reinterpret_cast<void*>(address), page_bytes, PROT_READ,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    signal(number, SIG_DFL);  // The same access comes again and ends the process.
  errno = error;
}

void watch_mapped_pages() {
  page_bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = handle_lost_page;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

// Lowers the soft limit on CPU time if it equals the hard one, as `ulimit -t` sets them: at the
// hard limit the system kills the process without a signal that could be handled.
void leave_time_to_end() {
  rlimit limit{};
  if (getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_max == RLIM_INFINITY ||
      limit.rlim_cur < limit.rlim_max)
    return;
  // These seconds are CPU time, summed over all threads.
  const rlim_t seconds = std::clamp<rlim_t>(limit.rlim_max / 20, 1, 30);
  if (limit.rlim_max <= seconds) return;
  limit.rlim_cur = limit.rlim_max - seconds;
  setrlimit(RLIMIT_CPU, &limit);
}

}  // namespace

void watch_signals() {
  if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) wake[0] = wake[1] = -1;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGXCPU}) {
    struct sigaction action {
    }, before{};
    // A signal that is ignored stays ignored: a shell starts background jobs that way, so that
    // Ctrl-C does not end them.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = handle;
    sigaction(number, &action, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
  watch_mapped_pages();
  leave_time_to_end();
}

std::atomic<bool>& stop_flag() { return stop; }
int signal_received() { return received; }
int signal_fd() { return wake[0]; }
bool model_lost() { return lost; }

}  // namespace xlate
