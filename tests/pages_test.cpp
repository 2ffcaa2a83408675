// Tests the pool of pages and the forecast of the pages in use.
#include "engine/pages.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support.h"

namespace xlate {
namespace {

TEST(PagePool, PagesForRoundsUp) {
  const PagePool pool(4, 16, 1);
  EXPECT_EQ(pool.pages_for(0), 0);
  EXPECT_EQ(pool.pages_for(1), 1);
  EXPECT_EQ(pool.pages_for(16), 1);
  EXPECT_EQ(pool.pages_for(17), 2);
  EXPECT_EQ(pool.page_tokens(), 16);
  EXPECT_EQ(pool.total(), 4);
  EXPECT_EQ(pool.free(), 4);
}

TEST(PagePool, TakesAndGivesBack) {
  PagePool pool(5, 2, 3);
  pool.take(0, 3);
  pool.take(2, 5);
  EXPECT_EQ(pool.free(), 0);
  EXPECT_EQ(pool.pages_of(0).size(), 2u);
  EXPECT_EQ(pool.pages_of(1).size(), 0u);
  EXPECT_EQ(pool.pages_of(2).size(), 3u);
  pool.give_back(0);
  // This slot has no pages.
  pool.give_back(1);
  EXPECT_EQ(pool.free(), 2);
  EXPECT_TRUE(pool.pages_of(0).empty());
}

TEST(PagePool, LendsFirstWhatCameBackLast) {
  PagePool pool(100, 1, 2);
  pool.take(0, 3);
  const std::set<std::int32_t> touched(pool.pages_of(0).begin(), pool.pages_of(0).end());
  pool.give_back(0);
  pool.take(1, 3);
  EXPECT_EQ(std::set<std::int32_t>(pool.pages_of(1).begin(), pool.pages_of(1).end()), touched);
}

TEST(PagePool, NoPageHasTwoOwners) {
  constexpr int kPages = 40, kSlots = 7;
  PagePool pool(kPages, 4, kSlots);
  test::Random random(1);
  std::vector<bool> holds(kSlots);
  int taken = 0;
  for (int i = 0; i < 10'000; ++i) {
    const int slot = test::whole(random, 0, kSlots - 1), tokens = test::whole(random, 1, 60);
    if (holds[slot]) {
      pool.give_back(slot);
      holds[slot] = false;
    } else if (pool.pages_for(tokens) <= pool.free()) {
      pool.take(slot, tokens);
      holds[slot] = true;
      ++taken;
      ASSERT_EQ(static_cast<std::int64_t>(pool.pages_of(slot).size()), (tokens + 3) / 4);
    }
    std::set<std::int32_t> owned;
    for (int s = 0; s < kSlots; ++s) {
      for (const std::int32_t page : pool.pages_of(s)) {
        ASSERT_TRUE(page >= 0 && page < kPages);
        ASSERT_TRUE(owned.insert(page).second) << "page " << page << " has two owners";
      }
    }
    ASSERT_EQ(static_cast<std::int64_t>(owned.size()) + pool.free(), kPages);
  }
  EXPECT_GT(taken, 1000);
}

TEST(PageForecast, ThoseThatEndMakeRoom) {
  PageForecast forecast(4, 3, 20);
  EXPECT_EQ(forecast.most_with(3), 3);
  // The sentence has 1 page for 4 steps, then 2, then 3.
  forecast.expect(0, 3);
  EXPECT_EQ(forecast.most_with(3), 6);
  // The sentence has 2 pages now, and 3 in its last 4 steps. Those meet the second page of a
  // sentence that begins now.
  forecast.advance(6);
  EXPECT_EQ(forecast.most_with(1), 4);
  EXPECT_EQ(forecast.most_with(3), 5);
  // This is its last step.
  forecast.advance(5);
  EXPECT_EQ(forecast.most_with(1), 4);
  forecast.advance(1);
  EXPECT_EQ(forecast.most_with(3), 3);
  // The sentence goes on.
  forecast.expect(0, 4);
  EXPECT_EQ(forecast.most_with(1), 5);
  forecast.forget(0);
  EXPECT_EQ(forecast.most_with(5), 5);
}

// Compares the forecast with a list of all lifetimes from which the pages are counted step by step.
TEST(PageForecast, CountsWhatEachLifeHas) {
  constexpr std::int64_t kPage = 8, kSlots = 30, kLongest = 100;
  PageForecast forecast(kPage, kSlots, kLongest);
  struct Life {
    std::int64_t first = 0, end = 0;
  };
  std::vector<Life> lives(kSlots);
  std::vector<bool> lives_now(kSlots);
  test::Random random(2);
  std::int64_t now = 0;
  for (int i = 0; i < 5'000; ++i) {
    const auto slot = static_cast<std::size_t>(test::whole(random, 0, kSlots - 1));
    const std::int64_t pages = test::whole(random, 1, kLongest / kPage + 1);
    Life& life = lives[slot];
    if (!lives_now[slot]) {
      forecast.expect(static_cast<std::int64_t>(slot), pages);
      life = {now, now + pages * kPage};
      lives_now[slot] = true;
    } else if (now - life.first >= kLongest || test::whole(random, 0, 3) == 0) {
      forecast.forget(static_cast<std::int64_t>(slot));
      life = {};
      lives_now[slot] = false;
    } else {
      forecast.expect(static_cast<std::int64_t>(slot), pages);
      life.end = std::max(life.end, life.first + pages * kPage);
    }
    // Some sentences wait while steps are run.
    if (test::whole(random, 0, 3) == 0) {
      const std::int64_t waited = test::whole(random, 1, 3);
      forecast.advance(waited);
      now += waited;
      for (std::size_t other = slot; other < kSlots; other += 3) {
        // Nobody waits who has just begun.
        if (!lives_now[other] || now - lives[other].first == waited) continue;
        forecast.delay(static_cast<std::int64_t>(other), waited);
        lives[other].first += waited, lives[other].end += waited;
      }
    }
    std::int64_t most = 0;
    for (std::int64_t step = now; step < now + pages * kPage; ++step) {
      std::int64_t in_use = (step - now) / kPage + 1;
      for (const Life& other : lives)
        in_use += step >= other.first && step < other.end ? (step - other.first) / kPage + 1 : 0;
      most = std::max(most, in_use);
    }
    ASSERT_EQ(forecast.most_with(pages), most) << "after " << i << " calls";
    const std::int64_t steps = test::whole(random, 0, 4) == 0 ? test::whole(random, 0, 40) : 0;
    forecast.advance(steps);
    now += steps;
  }
}

}  // namespace
}  // namespace xlate
