// Beside: computes something on a thread while its maker does other work.
#pragma once

#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "engine/threads.h"

namespace xlate {

/// Computes a value of type T beside what its maker does, until it is asked for.
template <class T>
class Beside {
 public:
  /// Begins to compute on a thread, or with `later`, in get(). `task` says in an error's message
  /// what the thread is for. What the function uses must outlive the object.
  Beside(const char* task, std::function<T()> compute, bool later) : task_(std::move(compute)) {
    value_ = task_.get_future();
    if (!later) thread_ = start_thread(task, std::move(task_));
  }
  /// Returns the value, or throws what the function has thrown. It may be called once.
  T get() {
    if (task_.valid()) task_();
    return value_.get();
  }
  /// Returns whether get() has not been called yet.
  bool pending() const { return value_.valid(); }

 private:
  std::packaged_task<T()> task_;
  std::future<T> value_;
  // The object waits for its thread when it is destroyed.
  std::jthread thread_;
};

}  // namespace xlate
