// Reads the lines of all inputs, one input after another. Only byte 0x0A ends a line. The length of
// lines is bounded. Inputs that begin as gzip data does are unpacked, and those whose names end in
// .gz must be gzip data.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace xlate {

struct Line {
  // The text has neither its newline nor one trailing CR, nor a BOM at the start of a file.
  std::string text;
  bool shortened = false;  // It is true if the line was longer and its rest was dropped.
  std::string prefix{};    // With --target-prefix, it is the line of that file.
};

/// Says what is known of an input before it is read.
struct InputFacts {
  std::int64_t bytes = -1;  // The size before unpacking, or −1 if it is not a regular file.
  // The time of the last change, as the system counts it.
  std::int64_t seconds = 0, nanoseconds = 0;
};

class LineReader {
 public:
  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 20;
  enum class Got { kLine, kTimeout, kEnd };

  /// Opens all inputs, before any work; "-" is stdin. Throws Error if one cannot be opened.
  explicit LineReader(const std::vector<std::string>& paths);
  ~LineReader();

  /// Gets the next line. Returns kTimeout if none came within `timeout`, which is no limit if it is
  /// negative, and kEnd at the end of the last input, after stop(), or after a signal. Throws Error
  /// if reading fails.
  Got next(Line& line, std::chrono::milliseconds timeout);

  /// Ends reading, so that a next() that waits returns kEnd. Any thread may call it.
  void stop();

  /// Returns which share of the bytes of all inputs makes up the lines that next() has returned, or
  /// −1 if the inputs' size is not known. The thread that calls next() may call it.
  double share_taken() const;
  /// Returns what is known of each input.
  std::vector<InputFacts> facts() const;

 private:
  class Stream;
  bool stopped() const;
  bool fill(std::chrono::milliseconds timeout, bool& timed_out);
  void finish_line(Line& line);

  int wake_ = -1;  // This eventfd is polled together with the input.
  std::atomic<bool> stopped_{false};
  std::vector<std::unique_ptr<Stream>> streams_;
  std::size_t current_ = 0;
  std::string buffer_;  // It holds unpacked bytes, of which the first taken_ have been used.
  std::size_t taken_ = 0;
  bool at_start_ = true;      // It is true until the first line of a file is complete.
  Line partial_;              // It holds the beginning of the next line.
  bool has_partial_ = false;  // It is true if bytes of the next line were seen.
  // They are the bytes read of all inputs, before and after unpacking.
  std::int64_t bytes_read_ = 0, bytes_unpacked_ = 0;
  // It counts the bytes of all inputs together, before unpacking, or is −1 if that is not known.
  std::int64_t bytes_total_ = 0;
};

}  // namespace xlate
