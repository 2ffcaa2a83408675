// ThreadPool forks and joins: the calling thread and its workers share the tasks of one call.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace xlate::cpu {

class ThreadPool {
 public:
  /// Starts the workers of a pool of `threads` threads, at least 1, which include the calling one.
  /// Throws Error if the system gives fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls task(i, thread) once for each i in [0, count), in any order, on any thread in [0,
  /// threads()), and returns when all calls have returned. If tasks have thrown, it throws the
  /// first of these exceptions.
  template <class Task>
  void run(std::int64_t count, Task&& task) {
    if (count <= 0) return;
    if (count == 1 || workers_.empty()) {
      for (std::int64_t i = 0; i < count; ++i) task(i, 0);
      return;
    }
    start(
        count,
        [](void* context, std::int64_t i, int thread) {
          (*static_cast<std::remove_reference_t<Task>*>(context))(i, thread);
        },
        &task);
  }

 private:
  using Call = void (*)(void* context, std::int64_t i, int thread);
  void start(std::int64_t count, Call call, void* context);
  void work(std::uint32_t round, int thread);
  void worker(int thread);
  void stop();

  std::vector<std::jthread> workers_;
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::atomic<std::uint64_t> count_{0};
  // The high 32 bits are the round, and the low ones are the next task.
  alignas(64) std::atomic<std::uint64_t> claim_{0};
  // Counts the tasks of this round that are not yet done.
  alignas(64) std::atomic<std::uint32_t> left_{0};
  // Counts the calls. A change wakes the workers.
  alignas(64) std::atomic<std::uint32_t> round_{0};
  std::atomic<bool> stop_{false};
  // Count the workers that wait in the system for a round, and the caller that waits for tasks.
  alignas(64) std::atomic<int> asleep_{0};
  std::atomic<int> caller_asleep_{0};
  std::mutex error_mutex_;
  // Holds the first exception that a task of this round has thrown.
  std::exception_ptr error_;
};

/// Divides `rows` into tasks of at most 32 rows and calls body(row) or body(row, thread) for each
/// row.
template <class Body>
void each_row(ThreadPool& pool, std::int64_t rows, const Body& body) {
  constexpr std::int64_t kMostRowsPerTask = 32;
  const std::int64_t each =
      std::clamp<std::int64_t>((rows + pool.threads() - 1) / pool.threads(), 1, kMostRowsPerTask);
  pool.run((rows + each - 1) / each, [&](std::int64_t task, int thread) {
    const std::int64_t end = std::min(rows, (task + 1) * each);
    for (std::int64_t row = task * each; row < end; ++row) {
      if constexpr (std::is_invocable_v<Body, std::int64_t, int>)
        body(row, thread);
      else
        body(row);
    }
  });
}

}  // namespace xlate::cpu
