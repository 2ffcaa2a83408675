// This hook for tests decodes every sentence to a given length, whatever the model would choose, so
// that models with arbitrary weights can be timed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/runner.h"

namespace xlate {

/// Passes on the sentences of `source` with limits from a list of n lengths: the sentence of line i
/// gets lengths[i mod n]. The list must not be empty when next() is called.
class ForcedLengths final : public SentenceInput {
 public:
  ForcedLengths(SentenceInput& source, std::vector<std::int32_t> lengths)
      : source_(source), lengths_(std::move(lengths)) {}
  const Sentence* next(bool wait) override;
  Sentence take() override;

 private:
  SentenceInput& source_;
  std::vector<std::int32_t> lengths_;
  Sentence present_;
  bool has_present_ = false;
};

/// Returns the numbers in the file that the environment variable XLATE_TEST_LENGTHS names, one per
/// line, or an empty list if the variable is not set. Throws Error if the file cannot be read,
/// holds no number, or has a line that is not a number above 0.
std::vector<std::int32_t> forced_lengths();

/// Returns the rules under which a sentence ends at its limit and nowhere else: an end token is
/// never chosen, and the first one is forced at the limit.
SearchRules ending_at_limits(SearchRules);

}  // namespace xlate
