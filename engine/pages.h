// Who has which page of a cache: a stack of free pages, and the pages of each slot.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace xlate {

class PagePool {
 public:
  PagePool() = default;
  /// `pages` in all, of `page_tokens` tokens each, for `slots` slots.
  PagePool(std::int64_t pages, std::int64_t page_tokens, std::int64_t slots);

  std::int64_t pages_for(std::int64_t tokens) const { return (tokens + page_tokens_ - 1) / page_tokens_; }
  std::int64_t page_tokens() const { return page_tokens_; }
  std::int64_t total() const { return total_; }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  /// Gives the slot as many more pages as so many tokens need; at most as many as are free.
  void take(std::int64_t slot, std::int64_t tokens);
  /// Tokens for which the slot has pages.
  std::int64_t room_of(std::int64_t slot) const { return static_cast<std::int64_t>(pages_of(slot).size()) * page_tokens_; }
  /// Takes the slot's pages back. What was given back last is lent first: memory never touched stays so.
  void give_back(std::int64_t slot);
  std::span<const std::int32_t> pages_of(std::int64_t slot) const { return taken_[static_cast<std::size_t>(slot)]; }

 private:
  std::int64_t page_tokens_ = 1, total_ = 0;
  std::vector<std::int32_t> free_;
  std::vector<std::vector<std::int32_t>> taken_;
};

}  // namespace xlate
