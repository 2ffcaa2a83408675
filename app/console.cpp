// Implements the console: the notes and the progress line on stderr.
#include "app/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "app/output_file.h"
#include "engine/threads.h"

namespace xlate {
namespace {

// Returns whether stderr is a terminal that can rewrite a line. "dumb" is the name of terminals
// that only add text, such as those inside editors.
bool rewrites_lines() {
  const char* name = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && !(name && std::string_view(name) == "dumb");
}

bool writes_to_terminal(const Options& options) {
  return OutputFile::is_stdout(options.output) && isatty(STDOUT_FILENO) == 1;
}

bool shows_progress(const Options& options, bool terminal) {
  if (options.quiet || options.progress == Progress::kNever) return false;
  if (options.progress == Progress::kAlways) return true;
  // The progress would overwrite lines that are being typed.
  const bool typed =
      std::find(options.input.begin(), options.input.end(), "-") != options.input.end() &&
      isatty(STDIN_FILENO) == 1;
  return terminal && !typed;
}

// Returns how many columns the terminal has at the moment.
std::size_t columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

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

Console::Console(const Options& options)
    : terminal_(rewrites_lines()),
      output_on_terminal_(writes_to_terminal(options)),
      quiet_(options.quiet),
      progress_(shows_progress(options, terminal_)) {}

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
    // Tests set another period, so that short runs show many lines.
    const char* period_text = std::getenv("XLATE_TEST_PROGRESS_MILLISECONDS");
    const std::chrono::milliseconds period(period_text ? std::max(1, std::atoi(period_text))
                                           : terminal_ ? 500
                                                       : 10'000);
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
  if (!terminal_) show(describe_());
  std::lock_guard lock(mutex_);
  clear_line();
}

std::unique_lock<std::mutex> Console::hide_progress() {
  if (!progress_ || !output_on_terminal_) return {};
  std::unique_lock lock(mutex_);
  clear_line();
  return lock;
}

void Console::show(const std::string& text) {
  std::lock_guard lock(mutex_);
  // A longer line would wrap, and only its last row would be rewritten.
  if (terminal_)
    std::fputs(("\r" + text.substr(0, columns() - 1) + "\x1b[K").c_str(), stderr);
  else
    std::fputs(("xlate: " + text + "\n").c_str(), stderr);
  line_shown_ = terminal_;
}

void Console::clear_line() {
  if (line_shown_) std::fputs("\r\x1b[K", stderr);
  line_shown_ = false;
}

}  // namespace xlate
