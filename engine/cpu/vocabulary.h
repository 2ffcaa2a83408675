// Defines what the scan of the vocabulary leaves for the selection in a step of search on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cpu/loops.h"

namespace xlate::cpu {

struct Scored {
  float logit;
  std::int32_t token;
};

/// Returns whether `a` comes before `b`: the larger logit first, and among equal ones the smaller
/// id.
inline bool better(const Scored& a, const Scored& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

struct SearchScratch {
  // These are the maximum and the sum of each chunk of the vocabulary: [chunks, R].
  std::vector<MaxSum> sums;
  // Each list has the best tokens of a split, best first: [splits, R, count].
  std::vector<Scored> best;
  // Counts the entries of each list: [splits, R]. Each thread writes to a split of its own.
  std::vector<int> best_count;
  // Each is the logarithm of the sum of exp(logit) over the whole vocabulary: [R].
  std::vector<float> log_sums;
  // Where row rules apply, these are the logits of a block of rows: [rows, V].
  std::vector<float> logits;
};

}  // namespace xlate::cpu
