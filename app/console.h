// All that goes to stderr while a run lasts: notes, a line at a time, and a progress line that they
// do not tear apart.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "app/options.h"

namespace xlate {

class Console {
 public:
  /// quiet: no notes and no progress.
  Console(bool quiet, Progress);
  ~Console();

  /// One line, after "xlate: ".
  void note(const std::string& text);
  /// Shows what `describe` returns: rewritten twice a second on a terminal, a line every ten
  /// seconds elsewhere, and once at the end. `describe` is called on another thread until
  /// stop_progress() returns.
  void start_progress(std::function<std::string()> describe);
  void stop_progress();

 private:
  void show(const std::string& text);
  void clear_line();

  const bool quiet_, terminal_, progress_;
  std::mutex mutex_;
  bool line_shown_ = false;
  std::function<std::string()> describe_;
  std::mutex stop_mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::jthread thread_;
};

}  // namespace xlate
