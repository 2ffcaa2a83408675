// Lines of the inputs, one after another: split at byte 0x0A alone, bounded in length, unpacked
// where the name ends in .gz or they begin as gzip data does.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace xlate {

struct Line {
  std::string text;        // without its newline, one trailing CR, and a BOM at the start of a file
  bool shortened = false;  // above kMaxLineBytes: the rest was dropped
};

class LineReader {
 public:
  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;
  enum class Got { kLine, kTimeout, kEnd };

  /// "-" is stdin. Throws Error where a file cannot be opened: all are opened here, before any
  /// work.
  explicit LineReader(const std::vector<std::string>& paths);
  ~LineReader();

  /// The next line; kTimeout where none came for so long, kEnd also after stop() or a signal.
  /// Negative: no timeout. Throws Error where reading fails.
  Got next(Line& line, std::chrono::milliseconds timeout);

  /// Ends reading, from any thread: a next() that waits returns kEnd.
  void stop();

  /// Bytes read of all inputs, packed; and how many there are, or −1 where that is not known.
  std::int64_t bytes_read() const { return bytes_read_; }
  std::int64_t bytes_total() const { return bytes_total_; }

 private:
  class Stream;
  bool stopped() const;
  bool fill(std::chrono::milliseconds timeout, bool& timed_out);
  void finish_line(Line& line);

  int wake_ = -1;  // an eventfd, polled beside the inputs
  std::atomic<bool> stopped_{false};
  std::vector<std::unique_ptr<Stream>> streams_;
  std::size_t current_ = 0;
  std::string buffer_;  // unpacked bytes not yet taken
  std::size_t taken_ = 0;
  bool at_start_ = true;  // of a file
  Line partial_;
  bool has_partial_ = false;                 // bytes of a line were seen
  std::atomic<std::int64_t> bytes_read_{0};  // read by the progress line
  std::int64_t bytes_total_ = 0;
};

}  // namespace xlate
