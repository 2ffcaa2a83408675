// A test's hook: every sentence is decoded to a length that is given, whatever its model would say,
// so that models of any weights can be timed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/runner.h"

namespace xlate {

/// The source's sentences with limits from a list, in turns: line i gets lengths[i mod n].
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

/// The numbers of the file that XLATE_TEST_LENGTHS names, one a line; empty without it. Throws
/// Error where a line is not a number above 0.
std::vector<std::int32_t> forced_lengths();

/// The rules under which a sentence ends at its limit and nowhere else.
SearchRules ending_at_limits(SearchRules);

}  // namespace xlate
