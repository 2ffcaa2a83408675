// HeadSet holds some of the heads of an attention.
#pragma once

#include <cstdint>

#include "engine/everywhere.h"

namespace xlate {

/// Holds which of up to kMost heads are meant. Kernels take it by value.
struct HeadSet {
  static constexpr int kMost = 256;
  std::uint64_t bits[kMost / 64] = {};

  void add(int head) { bits[head / 64] |= std::uint64_t{1} << (head % 64); }
  XLATE_EVERYWHERE bool has(int head) const { return bits[head / 64] >> (head % 64) & 1; }
};

}  // namespace xlate
