// start_thread: starts every thread that a run cannot do without. If the system refuses one, the
// error says what it was for, why it was refused, and what the user can do.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "engine/error.h"
#include "engine/limits.h"

namespace xlate {

/// Runs `work` on a new thread. `task` says in an error's message what the thread is for, such as
/// "writing the output". Throws Error if the system refuses the thread.
template <class Work>
std::jthread start_thread(const char* task, Work&& work) {
  try {
    return std::jthread(std::forward<Work>(work));
  } catch (const std::system_error& error) {
    fail(
        "no thread for {}: {}{}; fewer --threads or larger limits on memory and processes make "
        "room",
        task, error.code().message(), thread_limits());
  }
}

}  // namespace xlate
