// The allocation of a cache's pages to slots (PagePool), and the forecast of how many pages will be
// in use at later steps (PageForecast). Both are on the host and know page numbers only.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

namespace xlate {

/// Knows which pages are free, and which pages each slot has.
class PagePool {
 public:
  PagePool() = default;
  /// Makes a pool of `pages` pages of `page_tokens` tokens each, all of them free, for `slots`
  /// slots.
  PagePool(std::int64_t pages, std::int64_t page_tokens, std::int64_t slots);

  /// Returns the number of pages that this many tokens of one slot need.
  std::int64_t pages_for(std::int64_t tokens) const {
    return (tokens + page_tokens_ - 1) / page_tokens_;
  }
  std::int64_t page_tokens() const { return page_tokens_; }
  /// Returns the number of all pages.
  std::int64_t total() const { return total_; }
  /// Returns the number of free pages.
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  /// Gives the slot more pages, so that it has enough for `tokens` tokens in all. This many pages
  /// must be free.
  void take(std::int64_t slot, std::int64_t tokens);
  /// Returns the number of tokens for which the slot has pages.
  std::int64_t room_of(std::int64_t slot) const {
    return static_cast<std::int64_t>(pages_of(slot).size()) * page_tokens_;
  }
  /// Takes the slot's pages back. Free pages are a stack, so that pages that have been used before
  /// are used again first, and the system need not provide memory for pages that were never used.
  void give_back(std::int64_t slot);
  /// Returns the numbers of the slot's pages, in the order of its tokens.
  std::span<const std::int32_t> pages_of(std::int64_t slot) const {
    return taken_[static_cast<std::size_t>(slot)];
  }

 private:
  std::int64_t page_tokens_ = 1, total_ = 0;
  std::vector<std::int32_t> free_;                // a stack
  std::vector<std::vector<std::int32_t>> taken_;  // by slot
};

/// Forecasts how many pages the sentences in flight will have at each later step, from the steps at
/// which they are expected to end. So a sentence may begin when others are nearly done, although
/// not all pages that it will need are free yet. A sentence has pages for one token at its first
/// step, and for one more at each later step.
class PageForecast {
 public:
  PageForecast() = default;
  /// Makes a forecast for `slots` slots, which are empty, and sentences of at most `longest`
  /// tokens.
  PageForecast(std::int64_t page_tokens, std::int64_t slots, std::int64_t longest);

  /// Says that this many steps have been run.
  void advance(std::int64_t steps);
  /// Returns the largest number of pages in use at any step of one more sentence that begins now
  /// and ends when it has filled `pages` pages. The pages of this sentence are included.
  std::int64_t most_with(std::int64_t pages) const;
  /// Says that the slot's sentence will end when it has filled `pages` pages. If the slot is empty,
  /// its sentence begins now. A sentence is never expected to end earlier than was said before.
  void expect(std::int64_t slot, std::int64_t pages);
  /// Says that the slot's sentence has not taken part in the last steps, so that it ends later by
  /// as many.
  void delay(std::int64_t slot, std::int64_t steps);
  /// Says that the slot's sentence has ended, and returns after how many steps.
  std::int64_t forget(std::int64_t slot);

 private:
  // A sentence is in its slot from step `first` up to, but not including, step `end`. If both are
  // the same, the slot is empty.
  struct Life {
    std::int64_t first = 0, end = 0;
  };
  std::size_t place_of(std::int64_t step) const {
    return static_cast<std::size_t>(step % std::ssize(pages_));
  }
  // Adds `sign` times the pages of a sentence to all steps from `from` on.
  void add(const Life&, std::int64_t from, std::int64_t sign);

  std::int64_t page_tokens_ = 1, now_ = 0;
  // A ring buffer of the numbers of pages in use at steps now_, now_ + 1, and so on.
  std::vector<std::int64_t> pages_;
  std::vector<Life> lives_;  // by slot
};

}  // namespace xlate
