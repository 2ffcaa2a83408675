// Implements the thread pool. Workers wait by spinning first and by a futex afterwards, and take
// tasks from one atomic counter.
#include "engine/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "engine/error.h"
#include "engine/threads.h"

namespace xlate::cpu {
namespace {

// These spins take some 100 µs. The calls of a decoding step follow each other faster than a thread
// can sleep and wake, which takes longest with many threads in a container.
constexpr int kSpins = 3000;
// A claim holds a round in its high bits and the next task in its low ones, so that a late thread
// cannot take a task of another round.
constexpr int kTaskBits = 32;
constexpr std::uint64_t kTaskMask = (std::uint64_t{1} << kTaskBits) - 1;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

// This replaces std::atomic::wait, which yields the processor again and again before it sleeps. On
// a busy machine each yield costs a time slice. `asleep` counts the threads that wait in the
// system: who changes the value afterwards sees them, or they see the change.
void wait_while(std::atomic<std::uint32_t>& value, std::uint32_t present,
                std::atomic<int>& asleep) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != present) return;
    pause();
  }
  asleep.fetch_add(1, std::memory_order_seq_cst);
  while (value.load(std::memory_order_seq_cst) == present)
    syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, present, nullptr, nullptr, 0);
  asleep.fetch_sub(1, std::memory_order_relaxed);
}

// Wakes those that wait for a change of the value, which must have been made in sequentially
// consistent order.
void wake_all(std::atomic<std::uint32_t>& value, const std::atomic<int>& asleep) {
  if (asleep.load(std::memory_order_seq_cst) > 0)
    syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i)
      workers_.push_back(start_thread("the products", [this, i] { worker(i); }));
  } catch (const Error& error) {
    const std::size_t started = workers_.size();
    stop();
    fail("--threads {}: the system gave {}: {}", threads, started + 1, error.what());
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_ = true;
  round_.fetch_add(1, std::memory_order_seq_cst);
  wake_all(round_, asleep_);
  for (std::jthread& thread : workers_) thread.join();
}

// Takes tasks of one round until there are none. The caller of run() waits for tasks, not for
// threads: it does not wait for a thread that the system has suspended before it took a task.
void ThreadPool::work(std::uint32_t round, int thread) {
  for (std::uint64_t claim = claim_.load(std::memory_order_acquire);;) {
    const std::uint64_t task = claim & kTaskMask;
    if (static_cast<std::uint32_t>(claim >> kTaskBits) != round ||
        task >= count_.load(std::memory_order_acquire))
      return;
    if (!claim_.compare_exchange_weak(claim, claim + 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
      continue;
    try {
      call_(context_, static_cast<std::int64_t>(task), thread);
    } catch (...) {
      std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (left_.fetch_sub(1, std::memory_order_seq_cst) == 1 && thread != 0)
      wake_all(left_, caller_asleep_);
    claim = claim_.load(std::memory_order_acquire);
  }
}

void ThreadPool::start(std::int64_t count, Call call, void* context) {
  const std::uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  // First no claim of the previous round may succeed any more, because a thread that sees the new
  // count must not take a task with the old claim.
  claim_.store(std::uint64_t{round} << kTaskBits | kTaskMask, std::memory_order_release);
  call_ = call;
  context_ = context;
  left_.store(static_cast<std::uint32_t>(count), std::memory_order_relaxed);
  count_.store(static_cast<std::uint64_t>(count), std::memory_order_release);
  claim_.store(std::uint64_t{round} << kTaskBits, std::memory_order_release);
  round_.store(round, std::memory_order_seq_cst);
  wake_all(round_, asleep_);
  work(round, 0);
  for (std::uint32_t left = left_.load(std::memory_order_acquire); left != 0;
       left = left_.load(std::memory_order_acquire))
    wait_while(left_, left, caller_asleep_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::worker(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_while(round_, seen, asleep_);
    seen = round_.load(std::memory_order_acquire);
    if (stop_) return;
    work(seen, thread);
  }
}

}  // namespace xlate::cpu
