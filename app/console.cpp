// Implements the console: the notes and the progress line on stderr.
#include "app/console.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "engine/threads.h"

namespace xlate {

std::string one_line(std::string_view text) {
  std::string line;
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (byte(i) == '\n') {
      line += "\\n";
    } else if (byte(i) < 0x20 || byte(i) == 0x7F) {
      line += fmt::format("\\x{:02x}", byte(i));
    } else if (byte(i) == 0xC2 && byte(i + 1) >= 0x80 && byte(i + 1) < 0xA0) {
      // U+0080 to U+009F are control characters, too.
      line += fmt::format("\\u{:04x}", byte(++i));
    } else if (byte(i) == 0xE2 && byte(i + 1) == 0x80 && (byte(i + 2) & 0xFE) == 0xA8) {
      line += byte(i + 2) == 0xA8 ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      line += text[i];
    }
  }
  return line;
}

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
  std::fputs(("xlate: " + one_line(text) + "\n").c_str(), stderr);
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
