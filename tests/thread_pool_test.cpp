// Tests that the thread pool runs each task exactly once and passes results and exceptions on.
#include "engine/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "tests/support.h"

namespace xlate::cpu {
namespace {

// Runs `count` tasks and expects each to run exactly once, on a thread of the pool, with at most
// one task at a time on each thread.
void expect_each_once(ThreadPool& pool, std::int64_t count, std::vector<std::atomic<int>>& calls) {
  for (auto& call : calls) call.store(0, std::memory_order_relaxed);
  std::vector<std::atomic<int>> inside(static_cast<std::size_t>(pool.threads()));
  std::atomic<int> wrong{0};
  // The caller's thread writes it before the run, and the tasks read it.
  std::int64_t plain = 0;
  plain = count;
  pool.run(count, [&](std::int64_t i, int thread) {
    if (thread < 0 || thread >= pool.threads() || i < 0 || i >= count || plain != count) {
      ++wrong;
      return;
    }
    if (inside[static_cast<std::size_t>(thread)].fetch_add(1) != 0) ++wrong;
    calls[static_cast<std::size_t>(i)].fetch_add(1, std::memory_order_relaxed);
    inside[static_cast<std::size_t>(thread)].fetch_sub(1);
  });
  ASSERT_EQ(wrong, 0);
  for (std::size_t i = 0; i < calls.size(); ++i)
    ASSERT_EQ(calls[i], static_cast<std::int64_t>(i) < count ? 1 : 0)
        << "task " << i << " of " << count;
}

TEST(ThreadPool, EveryTaskExactlyOnce) {
  std::vector<std::atomic<int>> calls(100);
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    test::Random random(static_cast<unsigned>(threads));
    for (int round = 0; round < (threads > 3 ? 300 : 2000); ++round)
      expect_each_once(pool, test::whole(random, 0, 99), calls);
  }
}

TEST(ThreadPool, ResultsAreSeenByTheCaller) {
  ThreadPool pool(3);
  std::vector<std::int64_t> out(64);
  for (std::int64_t round = 0; round < 2000; ++round) {
    pool.run(64, [&](std::int64_t i, int) { out[static_cast<std::size_t>(i)] = i * round; });
    for (std::int64_t i = 0; i < 64; ++i) ASSERT_EQ(out[static_cast<std::size_t>(i)], i * round);
  }
}

TEST(ThreadPool, WakesFromSleep) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> calls(10);
  for (int round = 0; round < 20; ++round) {
    // This is long enough for the workers to stop spinning.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    expect_each_once(pool, 10, calls);
  }
}

TEST(ThreadPool, TasksOfUnequalLength) {
  ThreadPool pool(4);
  std::atomic<int> done{0};
  pool.run(9, [&](std::int64_t i, int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i == 8 ? 30 : 1));
    ++done;
  });
  EXPECT_EQ(done, 9);
}

TEST(ThreadPool, StartsAndEndsOftenAndUnused) {
  for (int i = 0; i < 100; ++i) {
    ThreadPool pool(4);
    if (i % 2) pool.run(3, [](std::int64_t, int) {});
  }
}

TEST(ThreadPool, WhatATaskThrowsReachesTheCallerOnce) {
  std::vector<std::atomic<int>> calls(20);
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      EXPECT_THROW(pool.run(20,
                            [](std::int64_t i, int) {
                              if (i % 2) throw std::bad_alloc();
                            }),
                   std::bad_alloc);
      expect_each_once(pool, 20, calls);
    }
  }
}

TEST(ThreadPool, EachRowOnce) {
  for (const int threads : {1, 2, 16}) {
    ThreadPool pool(threads);
    for (std::int64_t rows = 0; rows < 70; ++rows) {
      std::vector<std::atomic<int>> calls(70);
      each_row(pool, rows, [&](std::int64_t row) { ++calls[static_cast<std::size_t>(row)]; });
      for (std::int64_t row = 0; row < 70; ++row)
        ASSERT_EQ(calls[static_cast<std::size_t>(row)], row < rows ? 1 : 0)
            << row << " of " << rows;
    }
  }
}

TEST(ThreadPool, NoTasksAreNoCall) {
  ThreadPool pool(2);
  pool.run(0, [](std::int64_t, int) { FAIL(); });
  pool.run(-1, [](std::int64_t, int) { FAIL(); });
}

}  // namespace
}  // namespace xlate::cpu
