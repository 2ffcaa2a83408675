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
  pool.give_back(1);  // has none
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

}  // namespace
}  // namespace xlate
