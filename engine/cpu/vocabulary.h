// Scratch of a search step on the CPU: what one pass over the vocabulary leaves for the selection.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cpu/loops.h"

namespace xlate::cpu {

struct Scored {
  float logit;
  std::int32_t token;
};

/// Better first: the larger logit, among equals the smaller id.
inline bool better(const Scored& a, const Scored& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

struct SearchScratch {
  std::vector<MaxSum> sums;     // [chunks, R] maximum and sum of a chunk of the vocabulary
  std::vector<Scored> best;     // [R, threads, count] each thread's best, unsorted heaps
  std::vector<int> best_count;  // [R, threads]
  std::vector<float> log_sums;  // [R] log of the sum of exp(logit) over the whole vocabulary
};

}  // namespace xlate::cpu
