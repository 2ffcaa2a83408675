// The one place where threads are started: where the system refuses one, the error says which, why,
// and what to do.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "engine/error.h"
#include "engine/limits.h"

namespace xlate {

/// Runs `work` on a thread of its own. `task` goes into the message: "writing the output". Throws
/// Error where no thread is to be had.
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
