// Tests which sentence gets pages, which sentence waits, what the caches learn of target lengths,
// and what they tell the device. The host decides all of this, so the CPU backend is enough.
#include "engine/caches.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "tests/late_backend.h"

namespace xlate::test {
namespace {

// A page has 8 tokens, as Policy says by default.
constexpr std::int64_t kPage = 8;

// This backend records what it is asked for.
class NotingBackend final : public UnrecordedBackend {
 public:
  explicit NotingBackend(std::size_t budget = std::size_t{1} << 40)
      : UnrecordedBackend(make_backend({.threads = 1})), budget_(budget) {}
  std::size_t cache_budget() const override { return budget_; }
  Buffer allocate(std::size_t bytes) override {
    allocated.push_back(bytes);
    return UnrecordedBackend::allocate(bytes);
  }
  void update_table(Queue& queue, std::span<const TableUpdate> changes,
                    std::int32_t* table) override {
    changed += std::ssize(changes);
    UnrecordedBackend::update_table(queue, changes, table);
  }
  void upload(Queue& queue, std::span<const std::byte> host, void* device) override {
    ++uploads;
    UnrecordedBackend::upload(queue, host, device);
  }

  std::vector<std::size_t> allocated;
  std::int64_t changed = 0;
  int uploads = 0;

 private:
  std::size_t budget_;
};

Capacity capacity_of(std::int64_t slots, std::int64_t source_tokens) {
  return {.slots = slots,
          .beams = 2,
          .encoder_tokens = source_tokens,
          .source_tokens = source_tokens,
          .longest_source = 50,
          .longest_target = 40,
          .target_factor = 3,
          .target_extra = 10};
}

// Returns a sentence of `tokens` tokens. Caches use nothing of its ids but their number.
SourceSentence source_of(std::int64_t tokens, std::int32_t limit) {
  static const std::vector<std::int32_t> ids(1000, 5);
  return {std::span(ids).first(static_cast<std::size_t>(tokens)), limit};
}

// Returns the page that the device finds in the table.
std::int32_t page_of(const PagedCache& cache, std::int64_t slot, std::int64_t page) {
  return cache.table[slot * cache.pages_per_slot + page];
}

TEST(Caches, HaveRoomUntilTheirPagesAreTaken) {
  NotingBackend backend;
  Capacity capacity = capacity_of(3, 100);
  // With a factor and an extra of 0 the caches are made for one sentence of the longest kind.
  capacity.target_factor = 0;
  capacity.target_extra = 0;
  Caches caches(backend, {}, {}, capacity);
  // Five pages of 8 tokens hold 40 tokens.
  ASSERT_EQ(caches.free_self_pages(), 5);
  const SourceSentence longest = source_of(50, 40), shortest = source_of(1, 1);
  EXPECT_TRUE(caches.has_room(longest));
  caches.reserve(0, longest);
  EXPECT_FALSE(caches.has_room(longest));
  // It will be done before the other sentence needs all pages.
  EXPECT_TRUE(caches.has_room(shortest));
  caches.advance(32);
  EXPECT_EQ(caches.extend(0, 33), 40);
  EXPECT_FALSE(caches.has_room(shortest));
  caches.release(0, false);
  EXPECT_TRUE(caches.has_room(longest));
  caches.reserve(1, shortest);
  // It will still be at its first page while the other sentence has one.
  EXPECT_TRUE(caches.has_room(longest));
  caches.advance(1);
  caches.reserve(2, longest);
  // The sentence becomes longer than was expected.
  EXPECT_EQ(caches.extend(1, 17), 24);
  EXPECT_FALSE(caches.has_room(source_of(20, 30)));
  EXPECT_EQ(caches.extend(2, 16), 16);
  // No page is left.
  EXPECT_EQ(caches.extend(2, 17), 0);
  EXPECT_EQ(caches.extend(2, 16), 16);
  caches.release(1, false);
  EXPECT_EQ(caches.extend(2, 40), 40);
}

// The shared caches hold the tokens of a prompt but its last one.
TEST(Caches, PromptsShareTheirKeys) {
  NotingBackend backend;
  const auto queue = backend.make_queue();
  Caches caches(backend, {}, {.source_keys = SourceKeys::kShared}, capacity_of(4, 100));
  const PagedCaches& views = caches.paged_caches();
  EXPECT_TRUE(views.cross.empty());
  ASSERT_EQ(views.shared.size(), 1u);
  EXPECT_EQ(views.shared.front().keys_per_token, 1);
  EXPECT_EQ(views.self.front().keys_per_token, 2);
  ASSERT_EQ(caches.free_source_pages(), 15);
  caches.reserve(0, source_of(1, 5));
  EXPECT_EQ(caches.free_source_pages(), 15);
  caches.reserve(2, source_of(17, 5));
  EXPECT_EQ(caches.free_source_pages(), 13);
  caches.publish(*queue);
  EXPECT_EQ(views.tokens_before(), views.source_lengths);
  EXPECT_EQ(views.source_lengths[0], 0);
  EXPECT_EQ(views.source_lengths[2], 16);
  EXPECT_NE(page_of(views.shared.front(), 2, 0), page_of(views.shared.front(), 2, 1));
  caches.release(2, true);
  EXPECT_EQ(caches.free_source_pages(), 15);
}

TEST(Caches, SourcesNeedRoomToo) {
  NotingBackend backend;
  Caches caches(backend, {}, {}, capacity_of(4, 100));
  // The pool is made for 100 tokens and for the unused tokens in the last pages of 4 sentences.
  // These are 116 tokens in 15 pages. A source of 50 tokens needs 7 pages.
  ASSERT_EQ(caches.free_source_pages(), 15);
  caches.reserve(0, source_of(50, 1));
  caches.reserve(1, source_of(50, 1));
  EXPECT_EQ(caches.free_source_pages(), 1);
  EXPECT_TRUE(caches.has_room(source_of(8, 1)));
  EXPECT_FALSE(caches.has_room(source_of(9, 1)));
  caches.release(0, true);
  EXPECT_TRUE(caches.has_room(source_of(50, 1)));
}

TEST(Caches, AModelWithoutSourceKeysHasNone) {
  NotingBackend backend;
  Caches caches(backend, {}, {.source_keys = SourceKeys::kNone}, capacity_of(4, 100));
  EXPECT_TRUE(caches.paged_caches().cross.empty());
  EXPECT_EQ(caches.paged_caches().source_lengths, nullptr);
  EXPECT_EQ(caches.free_source_pages(), 0);
  EXPECT_TRUE(caches.has_room(source_of(50, 8)));
  caches.reserve(0, source_of(50, 8));
  const auto queue = backend.make_queue();
  caches.publish(*queue);
  EXPECT_EQ(backend.changed, 1);
  EXPECT_EQ(backend.uploads, 0);
}

TEST(Caches, LearnHowLongTargetsBecome) {
  NotingBackend backend;
  Policy policy;
  // Half of these have 0 and half of them 48 source tokens.
  policy.first_sentences = 4, policy.most_sentences = 40;
  Capacity capacity = capacity_of(2, 100);
  capacity.longest_target = 400;
  Caches caches(backend, policy, {}, capacity);
  const SourceSentence source = source_of(24, 400);
  const auto decode = [&](std::int64_t steps, bool done) {
    caches.reserve(0, source);
    for (std::int64_t step = 0; step < steps; ++step) {
      ASSERT_GT(caches.extend(0, step + 1), step);
      caches.advance(1);
    }
    caches.release(0, done);
  };
  EXPECT_EQ(caches.expected_tokens(source), 27 + 4);
  // A sentence is expected to need at most its limit.
  EXPECT_EQ(caches.expected_tokens(source_of(24, 30)), 30);
  // A preempted sentence teaches nothing, because its end is unknown.
  decode(81, false);
  EXPECT_EQ(caches.expected_tokens(source), 31);
  decode(81, true);
  EXPECT_EQ(caches.expected_tokens(source), (4 * 31 + 81) / 5);
  // Equal sources say nothing of the slope, which stays as it was.
  EXPECT_EQ(caches.expected_tokens(source_of(24 - 16, 400)), (4 * 31 + 81) / 5 - 18);
  for (int i = 0; i < 100; ++i) decode(81, true);
  EXPECT_NEAR(static_cast<double>(caches.expected_tokens(source)), 81, 1);
  // The new sentences outweigh the earlier ones.
  for (int i = 0; i < 100; ++i) decode(2, true);
  EXPECT_NEAR(static_cast<double>(caches.expected_tokens(source)), 2, 2);
  // Every sentence has a token.
  EXPECT_EQ(caches.expected_tokens(source_of(1, 400)), 1);
}

// Steps in which a sentence waits are none of its own.
TEST(Caches, DelaysMoveTheEnd) {
  NotingBackend backend;
  Policy policy;
  policy.first_sentences = 1;
  Capacity capacity = capacity_of(3, 100);
  capacity.longest_target = 400;
  Caches caches(backend, policy, {}, capacity);
  const SourceSentence source = source_of(20, 400);
  const std::int64_t before = caches.expected_tokens(source);
  caches.reserve(0, source);
  for (std::int64_t step = 0; step < before; ++step) {
    ASSERT_GT(caches.extend(0, step + 1), step);
    caches.advance(1);
    caches.advance(3);
    caches.delay(0, 3);
  }
  caches.release(0, true);
  EXPECT_EQ(caches.expected_tokens(source), before);
}

// A continuation does not grow with its prompt.
TEST(Caches, LearnHowLongContinuationsBecome) {
  NotingBackend backend;
  Policy policy;
  policy.first_sentences = 10;
  Capacity capacity = capacity_of(2, 100);
  capacity.longest_target = 400;
  Caches caches(backend, policy, {.source_keys = SourceKeys::kShared}, capacity);
  for (const std::int64_t tokens : {1, 90})
    EXPECT_EQ(caches.expected_tokens(source_of(tokens, 400)), 128 + 4) << tokens;
  EXPECT_EQ(caches.expected_tokens(source_of(5, 30)), 30);
  for (int i = 0; i < 10; ++i) {
    caches.reserve(0, source_of(i % 2 ? 1 : 90, 400));
    for (std::int64_t step = 0; step < 28 + 4; ++step) {
      ASSERT_GT(caches.extend(0, step + 1), step);
      caches.advance(1);
    }
    caches.release(0, true);
  }
  for (const std::int64_t tokens : {1, 90})
    EXPECT_NEAR(static_cast<double>(caches.expected_tokens(source_of(tokens, 400))), 78 + 4, 1);
}

TEST(Caches, TellTheDeviceOnce) {
  NotingBackend backend;
  const auto queue = backend.make_queue();
  Caches caches(backend, {}, {}, capacity_of(3, 100));
  caches.publish(*queue);
  EXPECT_EQ(backend.changed, 0);
  EXPECT_EQ(backend.uploads, 0);
  caches.reserve(2, source_of(17, 40));
  // Nothing is sent before publish().
  EXPECT_EQ(backend.changed, 0);
  caches.publish(*queue);
  // These are the pages of the source and the first page of the target.
  EXPECT_EQ(backend.changed, 3 + 1);
  EXPECT_EQ(backend.uploads, 1);
  EXPECT_EQ(caches.paged_caches().source_lengths[2], 17);
  caches.publish(*queue);
  // The slot has this page already.
  EXPECT_EQ(caches.extend(2, kPage), kPage);
  caches.publish(*queue);
  EXPECT_EQ(backend.changed, 4);
  EXPECT_EQ(caches.extend(2, 20), 24);
  caches.publish(*queue);
  EXPECT_EQ(backend.changed, 4 + 2);
  EXPECT_EQ(backend.uploads, 1);
  // The device need not know of a release.
  caches.release(2, true);
  caches.publish(*queue);
  EXPECT_EQ(backend.changed, 6);
  EXPECT_EQ(backend.uploads, 1);
}

// Checks after each random move that no page has two owners in the tables that the device reads.
TEST(Caches, TablesNameEachPageOnce) {
  constexpr int kSlots = 7;
  NotingBackend backend;
  const auto queue = backend.make_queue();
  Caches caches(backend, {}, {.layers = 2, .width = 4}, capacity_of(kSlots, 150));
  // Both have the number of tokens reserved for the sentence in each slot.
  std::vector<std::int64_t> tokens(kSlots), source_tokens(kSlots);
  Random random(1);
  int dry = 0, refused = 0;
  const auto move = [&](int slot) {
    const SourceSentence source = source_of(whole(random, 1, 50), whole(random, 1, 40));
    auto& room = tokens[static_cast<std::size_t>(slot)];
    if (room == 0) {
      if (!caches.has_room(source)) return void(++refused);
      caches.reserve(slot, source);
      room = 1, source_tokens[static_cast<std::size_t>(slot)] = std::ssize(source.ids);
    } else if (whole(random, 0, 9) == 0) {
      caches.release(slot, true);
      room = 0;
    } else {
      const std::int64_t wanted = std::min<std::int64_t>(40, room + whole(random, 0, 9));
      const std::int64_t got = caches.extend(slot, wanted);
      if (got == 0) return void(++dry);
      ASSERT_GE(got, wanted);
      room = wanted;
    }
  };
  for (int i = 0; i < 5000; ++i) {
    move(i % kSlots);
    if (i % kSlots == 0) caches.advance(1);
    caches.publish(*queue);
    for (const bool own : {false, true}) {
      const PagedCache& cache =
          own ? caches.paged_caches().self.back() : caches.paged_caches().cross.back();
      std::set<std::int32_t> pages;
      for (int slot = 0; slot < kSlots; ++slot) {
        const std::int64_t room = tokens[static_cast<std::size_t>(slot)];
        const std::int64_t count =
            own || room == 0 ? room : source_tokens[static_cast<std::size_t>(slot)];
        for (std::int64_t page = 0; page * kPage < count; ++page) {
          const std::int32_t number = page_of(cache, slot, page);
          ASSERT_TRUE(number >= 0 && number * kPage * cache.keys_per_token < cache.pages.rows);
          ASSERT_TRUE(pages.insert(number).second) << "page " << number << " has two owners";
        }
      }
    }
  }
  EXPECT_GT(dry, 0);
  EXPECT_GT(refused, 0);
}

// The order matters for start-up time and for memory, because a device clears each allocation, and
// because the remaining budget is read between two allocations.
TEST(Caches, AllocateInOrder) {
  NotingBackend backend;
  const Caches caches(backend, {}, {.layers = 3, .width = 64}, capacity_of(4, 100));
  const auto bytes = [](std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(float);
  };
  const std::int64_t own_pages = caches.free_self_pages();
  // The sentences in flight are expected to need 112.5 + 4·4 tokens for 100 source tokens in 4
  // sentences, and 4·4 unused tokens in their last pages. The pool has three fifths of that.
  EXPECT_EQ(own_pages, static_cast<std::int64_t>(std::ceil(0.6 * (112.5 + 16 + 16) / 8)));
  EXPECT_EQ(backend.allocated,
            (std::vector<std::size_t>{bytes(4), bytes(3 * 15 * 8 * 2 * 64), bytes(4 * 7),
                                      bytes(3 * own_pages * 8 * 2 * 2 * 64), bytes(4 * 5)}));
  ASSERT_EQ(caches.paged_caches().self.size(), 3u);
  ASSERT_EQ(caches.paged_caches().cross.size(), 3u);
  for (const PagedCache& cache : caches.paged_caches().self) {
    EXPECT_EQ(cache.pages.rows, own_pages * 8 * 2);
    EXPECT_EQ(cache.pages.columns, 2 * 64);
    EXPECT_EQ(cache.keys_per_token, 2);
    EXPECT_EQ(cache.table, caches.paged_caches().self.front().table);
  }
  EXPECT_EQ(caches.paged_caches().cross.front().keys_per_token, 1);
}

TEST(Caches, ABudgetBoundsThem) {
  const CacheShape shape{.layers = 3, .width = 64};
  const std::int64_t page = 8 * 2 * 64 * 3 * static_cast<std::int64_t>(sizeof(float));
  NotingBackend small(static_cast<std::size_t>(page * (15 + 2 * 7) + 1));
  EXPECT_EQ(Caches(small, {}, shape, capacity_of(4, 100)).free_self_pages(), 7);
  NotingBackend none(0);
  // One sentence fits even without a budget.
  EXPECT_EQ(Caches(none, {}, shape, capacity_of(4, 100)).free_self_pages(), 5);
}

// What affordable_tokens() promises fits into the budget, and it does not promise much less than
// fits.
TEST(Caches, WhatIsAffordableFits) {
  const CacheShape shape{.layers = 3, .width = 64, .working_bytes = 1000};
  const std::size_t budget = std::size_t{64} << 20;
  for (const std::int64_t beams : {1, 4}) {
    NotingBackend backend(budget);
    Capacity capacity = capacity_of(0, Caches::affordable_tokens(backend, {}, shape, beams));
    capacity.beams = beams, capacity.slots = capacity.source_tokens / 8;
    const Caches caches(backend, {}, shape, capacity);
    const auto taken =
        std::accumulate(backend.allocated.begin(), backend.allocated.end(), std::size_t{0});
    const double all =
        static_cast<double>(taken) + 1000 * static_cast<double>(capacity.source_tokens);
    EXPECT_LE(all, 1.02 * static_cast<double>(budget)) << beams << " beams";
    EXPECT_GE(all, 0.9 * static_cast<double>(budget)) << beams << " beams";
  }
  NotingBackend none(0);
  EXPECT_EQ(Caches::affordable_tokens(none, {}, shape, 4), 1);
}

}  // namespace
}  // namespace xlate::test
