// FirstError: the error that ends a run.
#pragma once

#include <exception>
#include <mutex>

#include "app/interrupt.h"
#include "app/line_reader.h"

namespace xlate {

/// Keeps the first error of any stage and ends the run. Later errors are dropped, since they follow
/// from the first.
class FirstError {
 public:
  explicit FirstError(LineReader& reader) : reader_(reader) {}
  void set(std::exception_ptr error) {
    std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    stop_flag() = true;
    reader_.stop();
  }
  void rethrow() {
    std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  LineReader& reader_;
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace xlate
