// Puts finished lines back in order and writes each run of complete ones at once, on a thread of
// its own.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "app/output_file.h"
#include "app/report.h"

namespace xlate {

class OrderedOutput {
 public:
  /// `failed` is called, on the writing thread, when a write fails; everything given afterwards is
  /// dropped. Throws Error where there is no thread to be had.
  OrderedOutput(OutputFile&, RunRecord&, std::function<void(std::exception_ptr)> failed);
  ~OrderedOutput();

  /// The output of a line, its newline included. Each line once, from any thread, in any order.
  void put(std::int64_t line, std::string text);
  /// Waits until all lines before this one are written. False where that will not happen.
  bool wait_written(std::int64_t line);
  struct Written {
    std::int64_t lines = 0;
    Clock::time_point last{};  // when the last of them was
  };
  Written written();
  /// Lets wait_written() return: nothing more will be decoded.
  void give_up_waiting();
  /// Writes the complete prefix and ends the thread. No put() afterwards.
  void finish();

 private:
  void work();
  void write_runs();

  OutputFile& file_;
  RunRecord& record_;
  std::function<void(std::exception_ptr)> failed_;
  std::mutex mutex_;
  std::condition_variable complete_, progress_;
  std::deque<std::optional<std::string>> waiting_;  // of lines from next_ on
  std::int64_t next_ = 0;                           // first line not yet taken to be written
  std::int64_t written_ = 0;
  bool finishing_ = false, gave_up_ = false, broken_ = false;
  std::jthread thread_;
};

}  // namespace xlate
