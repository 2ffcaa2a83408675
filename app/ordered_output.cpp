// Implements the ordered output: lines wait in a deque until all lines before them have come.
#include "app/ordered_output.h"

#include "app/interrupt.h"
#include "engine/threads.h"

namespace xlate {

OrderedOutput::OrderedOutput(OutputFile& file, RunRecord& record, Console& console,
                             std::function<void(std::exception_ptr)> failed)
    : file_(file),
      record_(record),
      console_(console),
      failed_(std::move(failed)),
      first_(record.resumed_lines),
      next_(first_),
      written_(first_),
      thread_(start_thread("writing the output", [this] { work(); })) {}

OrderedOutput::~OrderedOutput() { finish(); }

void OrderedOutput::put(std::int64_t line, std::string text) {
  std::lock_guard lock(mutex_);
  if (model_lost() && !broken_) {
    // This line may be made of what could not be read. Those that were put before it are right.
    broken_ = true;
    progress_.notify_all();
  }
  if (broken_) return;
  const auto index = static_cast<std::size_t>(line - next_);
  if (waiting_.size() <= index) waiting_.resize(index + 1);
  waiting_[index] = std::move(text);
  if (index == 0) complete_.notify_one();
}

bool OrderedOutput::wait_written(std::int64_t line) {
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return written_ >= line || gave_up_ || finishing_ || broken_; });
  return written_ >= line;
}

OrderedOutput::Written OrderedOutput::written() {
  std::lock_guard lock(mutex_);
  return {written_, record_.last_output};
}

void OrderedOutput::give_up_waiting() {
  std::lock_guard lock(mutex_);
  gave_up_ = true;
  progress_.notify_all();
}

void OrderedOutput::finish() {
  {
    std::lock_guard lock(mutex_);
    finishing_ = true;
    complete_.notify_one();
    progress_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void OrderedOutput::work() {
  try {
    write_runs();
  } catch (...) {
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      waiting_.clear();
      progress_.notify_all();
    }
    failed_(std::current_exception());
  }
}

void OrderedOutput::write_runs() {
  std::string text;
  std::unique_lock lock(mutex_);
  while (true) {
    const auto ready = [&] { return !waiting_.empty() && waiting_.front().has_value(); };
    complete_.wait(lock, [&] { return ready() || finishing_; });
    std::int64_t lines = 0;
    for (text.clear(); ready(); waiting_.pop_front(), ++lines) text += *waiting_.front();
    if (lines == 0) return;
    next_ += lines;
    lock.unlock();
    const Clock::time_point start = Clock::now();
    {
      const auto hidden = console_.hide_progress();
      file_.write(text, lines);
      file_.flush();
    }
    const Clock::time_point now = Clock::now();
    record_.counters.write_nanoseconds += std::chrono::nanoseconds(now - start).count();
    lock.lock();
    if (written_ == first_) record_.first_output = now;
    record_.last_output = now;
    written_ += lines;
    record_.counters.lines_out = written_ - first_;
    progress_.notify_all();
  }
}

}  // namespace xlate
