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
  /// Takes from the options what is shown, and which streams the run reads and writes.
  explicit Console(const Options& options);
  ~Console();

  /// Writes `text` as one line after "xlate: ".
  void note(const std::string& text);
  /// Shows what `describe` returns. On a terminal, one line is rewritten twice a second, and
  /// stop_progress() removes it. Elsewhere, a line is written every ten seconds and once more by
  /// stop_progress(). `describe` is called on another thread, and must remain valid until
  /// stop_progress() returns.
  void start_progress(std::function<std::string()> describe);
  void stop_progress();
  /// Removes the progress line if the output goes to a terminal as well, and keeps it from being
  /// shown until the lock is released, so that the output does not run into it.
  [[nodiscard]] std::unique_lock<std::mutex> hide_progress();

 private:
  void show(const std::string& text);
  void clear_line();

  // A line can be rewritten on this terminal.
  const bool terminal_;
  const bool output_on_terminal_, quiet_, progress_;
  std::mutex mutex_;
  bool line_shown_ = false;
  std::function<std::string()> describe_;
  std::mutex stop_mutex_;
  std::condition_variable stop_signal_;
  bool stopping_ = false;
  std::jthread thread_;
};

}  // namespace xlate
