// Implements the forced lengths: gives each sentence the limit that the list has for its line.
#include "app/forced_lengths.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "engine/error.h"

namespace xlate {

const Sentence* ForcedLengths::next(bool wait) {
  if (has_present_) return &present_;
  const Sentence* next = source_.next(wait);
  if (!next) return nullptr;
  present_ = source_.take();
  present_.limit = lengths_[static_cast<std::size_t>(present_.line) % lengths_.size()];
  has_present_ = true;
  return &present_;
}

Sentence ForcedLengths::take() {
  has_present_ = false;
  return std::move(present_);
}

std::vector<std::int32_t> forced_lengths() {
  const char* path = std::getenv("XLATE_TEST_LENGTHS");
  if (!path) return {};
  std::ifstream file(path);
  if (!file) fail("XLATE_TEST_LENGTHS: cannot read {}", path);
  std::vector<std::int32_t> lengths;
  for (std::int32_t length = 0; file >> length;) {
    if (length < 1)
      fail("XLATE_TEST_LENGTHS: {}: line {} holds {}, expected a number above 0", path,
           lengths.size() + 1, length);
    lengths.push_back(length);
  }
  if (!file.eof() || lengths.empty())
    fail("XLATE_TEST_LENGTHS: {}: line {} is not a number", path, lengths.size() + 1);
  return lengths;
}

SearchRules ending_at_limits(SearchRules rules) {
  // Without an end token, nothing but the limit ends a sentence anyway.
  rules.forced_end = rules.ends.empty() ? -1 : rules.ends.front();
  for (const std::int32_t end : rules.ends) {
    if (std::find(rules.never_chosen.begin(), rules.never_chosen.end(), end) ==
        rules.never_chosen.end())
      rules.never_chosen.push_back(end);
  }
  return rules;
}

}  // namespace xlate
