// Which keys the beams of a sentence have in their histories, each once.
#pragma once

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// A lane's share of a warp's sum of all lanes up to it.
__device__ inline int sum_up_to_lane(int x) {
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, x, offset);
    if (static_cast<int>(threadIdx.x % kWarp) >= offset) x += other;
  }
  return x;
}

// By a warp, for up to kTileBeams beams: ancestor_of(t, k) is the line on which beam k has position
// t < length. For each position, in turn, the lines on which beams have it, in the order of the
// first such beam: emit(place in the list, t, line, the beams as bits). Returns how many.
template <class AncestorOf, class Emit>
__device__ int list_distinct_keys(int length, int beams, const AncestorOf& ancestor_of,
                                  const Emit& emit) {
  const int lane = threadIdx.x % kWarp;
  int count = 0;
  for (int first = 0; first < length; first += kWarp) {
    const int t = first + lane;
    int ancestors[kTileBeams];
    unsigned beam_mask[kTileBeams] = {};  // of beam k's line, where no earlier beam has it
    int found = 0;
    if (t < length) {
#pragma unroll
      for (int k = 0; k < kTileBeams; ++k) ancestors[k] = k < beams ? ancestor_of(t, k) : -1;
#pragma unroll
      for (int k = 0; k < kTileBeams; ++k) {
        if (k >= beams) break;
#pragma unroll
        for (int j = 0; j < kTileBeams; ++j)
          beam_mask[k] |= j < beams && ancestors[j] == ancestors[k] ? 1u << j : 0u;
        if (beam_mask[k] & ((1u << k) - 1)) beam_mask[k] = 0;
        found += beam_mask[k] != 0;
      }
    }
    const int end = sum_up_to_lane(found);
    int place = count + end - found;
#pragma unroll
    for (int k = 0; k < kTileBeams; ++k) {
      if (beam_mask[k]) emit(place++, t, ancestors[k], beam_mask[k]);
    }
    count += __shfl_sync(kAllLanes, end, kWarp - 1);
  }
  return count;
}

}  // namespace xlate::cuda
