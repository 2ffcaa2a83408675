// Who has which page of a cache: a stack of free pages, and the pages of each slot; and how many
// will be in use at the steps to come.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

namespace xlate {

class PagePool {
 public:
  PagePool() = default;
  /// `pages` in all, of `page_tokens` tokens each, for `slots` slots.
  PagePool(std::int64_t pages, std::int64_t page_tokens, std::int64_t slots);

  std::int64_t pages_for(std::int64_t tokens) const {
    return (tokens + page_tokens_ - 1) / page_tokens_;
  }
  std::int64_t page_tokens() const { return page_tokens_; }
  std::int64_t total() const { return total_; }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  /// Gives the slot as many more pages as so many tokens need; at most as many as are free.
  void take(std::int64_t slot, std::int64_t tokens);
  /// Tokens for which the slot has pages.
  std::int64_t room_of(std::int64_t slot) const {
    return static_cast<std::int64_t>(pages_of(slot).size()) * page_tokens_;
  }
  /// Takes the slot's pages back. What was given back last is lent first: memory never touched
  /// stays so.
  void give_back(std::int64_t slot);
  std::span<const std::int32_t> pages_of(std::int64_t slot) const {
    return taken_[static_cast<std::size_t>(slot)];
  }

 private:
  std::int64_t page_tokens_ = 1, total_ = 0;
  std::vector<std::int32_t> free_;
  std::vector<std::vector<std::int32_t>> taken_;
};

/// The pages that the sentences admitted will have at each step to come, as far as their ends can
/// be foreseen: those that are nearly done make room for those that begin. A sentence that began at
/// step s has pages for t − s + 1 tokens at step t.
class PageForecast {
 public:
  PageForecast() = default;
  /// For `slots` slots and sentences of at most `longest` tokens.
  PageForecast(std::int64_t page_tokens, std::int64_t slots, std::int64_t longest);

  /// So many steps have gone by.
  void advance(std::int64_t steps);
  /// The most pages in use at any step of a sentence that began now and ended when so many pages
  /// were full; its own included.
  std::int64_t most_with(std::int64_t pages) const;
  /// The slot's sentence begins now, or goes on: it will end when so many pages are full.
  void expect(std::int64_t slot, std::int64_t pages);
  /// It has ended. Returns after how many steps.
  std::int64_t forget(std::int64_t slot);

 private:
  struct Life {
    std::int64_t first = 0, end = 0;  // steps; the same: none
  };
  std::size_t place_of(std::int64_t step) const {
    return static_cast<std::size_t>(step % std::ssize(pages_));
  }
  void add(const Life&, std::int64_t from, std::int64_t sign);

  std::int64_t page_tokens_ = 1, now_ = 0;
  std::vector<std::int64_t> pages_;  // in use at step now_, now_ + 1, …: a ring
  std::vector<Life> lives_;
};

}  // namespace xlate
