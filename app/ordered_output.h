// Puts finished lines back in order. A thread of its own writes all lines at once that are complete
// and follow what has been written.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "app/console.h"
#include "app/output_file.h"
#include "app/report.h"

namespace xlate {

class OrderedOutput {
 public:
  /// Starts the writing thread, which calls `failed` when a write fails. Everything that is put
  /// afterwards is dropped. The output of record.resumed_lines lines is already in the file. Throws
  /// Error if the thread cannot be started.
  OrderedOutput(OutputFile&, RunRecord&, Console&, std::function<void(std::exception_ptr)> failed);
  ~OrderedOutput();

  /// Returns the first line that is to be put.
  std::int64_t first_line() const { return first_; }
  /// Says that a line was read. Each line must be read before it is put, and in order.
  void add_line(const Line& line) {
    if (file_.journal()) file_.journal()->add_line(line);
  }
  /// Takes the output of a line, its newline included. Each line must be put once. The order does
  /// not matter, and any thread may call it.
  void put(std::int64_t line, std::string text);
  /// Waits until all lines before `line` are written. Returns false if they may never be, because
  /// of give_up_waiting(), finish() or a failed write.
  bool wait_written(std::int64_t line);
  struct Written {
    std::int64_t lines = 0;
    Clock::time_point last{};  // The last of these lines was written at this time.
  };
  Written written();
  /// Makes every wait_written() return, now and later, because nothing more will be decoded.
  void give_up_waiting();
  /// Writes the lines up to the first one that is missing, and ends the thread. put() may not be
  /// called afterwards.
  void finish();

 private:
  void work();
  void write_runs();

  OutputFile& file_;
  RunRecord& record_;
  Console& console_;
  std::function<void(std::exception_ptr)> failed_;
  std::mutex mutex_;
  std::condition_variable complete_, progress_;
  std::deque<std::optional<std::string>> waiting_;  // It holds the lines from next_ on.
  const std::int64_t first_;
  std::int64_t next_;  // This is the first line that is not yet taken to be written.
  std::int64_t written_;
  bool finishing_ = false, gave_up_ = false, broken_ = false;
  std::jthread thread_;
};

}  // namespace xlate
