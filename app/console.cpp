// Implements the console: the notes and the progress line on stderr.
#include "app/console.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "engine/threads.h"

namespace xlate {

Console::Console(bool quiet, Progress progress)
    : quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      progress_(!quiet &&
                (progress == Progress::kAlways || (progress == Progress::kAuto && terminal_))) {}

Console::~Console() { stop_progress(); }

void Console::note(const std::string& text) {
  if (quiet_) return;
  std::lock_guard lock(mutex_);
  clear_line();
  std::fputs(("xlate: " + text + "\n").c_str(), stderr);
}

void Console::start_progress(std::function<std::string()> describe) {
  if (!progress_) return;
  describe_ = std::move(describe);
  thread_ = start_thread("showing progress", [this] {
    const auto period = terminal_ ? std::chrono::milliseconds(500) : std::chrono::seconds(10);
    std::unique_lock lock(stop_mutex_);
    while (!stop_signal_.wait_for(lock, period, [&] { return stopping_; })) show(describe_());
  });
}

void Console::stop_progress() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(stop_mutex_);
    stopping_ = true;
    stop_signal_.notify_all();
  }
  thread_.join();
  show(describe_());
  if (terminal_) std::fputc('\n', stderr);
  line_shown_ = false;
}

void Console::show(const std::string& text) {
  std::lock_guard lock(mutex_);
  if (terminal_)
    std::fputs(("\r" + text + "\x1b[K").c_str(), stderr);
  else
    std::fputs(("xlate: " + text + "\n").c_str(), stderr);
  line_shown_ = terminal_;
}

void Console::clear_line() {
  if (line_shown_) std::fputs("\r\x1b[K", stderr);
  line_shown_ = false;
}

}  // namespace xlate
