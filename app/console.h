// The console writes what a run says on stderr while it translates: notes of one line each, and a
// progress line, which a note replaces instead of running into it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "app/options.h"

namespace xlate {

/// Returns the text with escapes in the place of control characters and line separators (U+2028,
/// U+2029), so that it is one line whatever a message quotes.
std::string one_line(std::string_view text);

class Console {
 public:
  /// If `quiet` is set, the console shows neither notes nor progress.
  Console(bool quiet, Progress);
  ~Console();

  /// Writes `text` as one line after "xlate: ".
  void note(const std::string& text);
  /// Shows what `describe` returns. On a terminal, one line is rewritten twice a second; elsewhere,
  /// a line is written every ten seconds. stop_progress() shows it once more. `describe` is called
  /// on another thread, and must remain valid until stop_progress() returns.
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
