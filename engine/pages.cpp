// Implements the allocation of pages and the forecast of their use.
#include "engine/pages.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace xlate {

PagePool::PagePool(std::int64_t pages, std::int64_t page_tokens, std::int64_t slots)
    : page_tokens_(page_tokens), total_(pages), taken_(static_cast<std::size_t>(slots)) {
  for (std::int64_t page = pages; page-- > 0;) free_.push_back(static_cast<std::int32_t>(page));
}

void PagePool::take(std::int64_t slot, std::int64_t tokens) {
  auto& taken = taken_[static_cast<std::size_t>(slot)];
  assert(pages_for(tokens) - static_cast<std::int64_t>(taken.size()) <= free());
  for (std::int64_t i = pages_for(tokens) - static_cast<std::int64_t>(taken.size()); i > 0; --i) {
    taken.push_back(free_.back());
    free_.pop_back();
  }
}

void PagePool::give_back(std::int64_t slot) {
  auto& taken = taken_[static_cast<std::size_t>(slot)];
  for (; !taken.empty(); taken.pop_back()) free_.push_back(taken.back());
}

PageForecast::PageForecast(std::int64_t page_tokens, std::int64_t slots, std::int64_t longest)
    : page_tokens_(page_tokens),
      pages_(static_cast<std::size_t>((longest / page_tokens + 2) * page_tokens)),
      lives_(static_cast<std::size_t>(slots)) {}

void PageForecast::advance(std::int64_t steps) {
  for (std::int64_t i = 0; i < std::min(steps, std::ssize(pages_)); ++i)
    pages_[place_of(now_ + i)] = 0;
  now_ += steps;
}

std::int64_t PageForecast::most_with(std::int64_t pages) const {
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < pages * page_tokens_; ++i) {
    most = std::max(most, pages_[place_of(now_ + i)] + i / page_tokens_ + 1);
  }
  return most;
}

void PageForecast::expect(std::int64_t slot, std::int64_t pages) {
  Life& life = lives_[static_cast<std::size_t>(slot)];
  if (life.first == life.end) life = {now_, now_};
  const std::int64_t before = life.end;
  life.end = std::max(before, life.first + pages * page_tokens_);
  assert(life.end - now_ <= std::ssize(pages_));
  add(life, before, 1);
}

void PageForecast::delay(std::int64_t slot, std::int64_t steps) {
  Life& life = lives_[static_cast<std::size_t>(slot)];
  add(life, now_, -1);
  life.first += steps, life.end += steps;
  add(life, now_, 1);
}

std::int64_t PageForecast::forget(std::int64_t slot) {
  const Life life = std::exchange(lives_[static_cast<std::size_t>(slot)], {});
  add(life, now_, -1);
  return now_ - life.first;
}

void PageForecast::add(const Life& life, std::int64_t from, std::int64_t sign) {
  for (std::int64_t step = std::max(from, now_); step < life.end; ++step)
    pages_[place_of(step)] += sign * ((step - life.first) / page_tokens_ + 1);
}

}  // namespace xlate
