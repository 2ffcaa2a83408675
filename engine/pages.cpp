#include "engine/pages.h"

#include <cassert>

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

}  // namespace xlate
