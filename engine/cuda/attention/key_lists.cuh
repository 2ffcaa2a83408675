// Finds the distinct keys in the histories of a beam tile's beams, for the key lists of
// key_lists.cu and of solo/attention.cuh.
#pragma once

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// Returns the inclusive prefix sum over a warp: the sum of x over all lanes up to this one.
__device__ inline int sum_up_to_lane(int x) {
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, x, offset);
    if (static_cast<int>(threadIdx.x % kWarp) >= offset) x += other;
  }
  return x;
}

// Lists the distinct keys of up to kTileBeams beams; all lanes of a warp call it together.
// ancestor_of(t, k) is the beam under which the key of beam k at position t < length is stored. For
// each position in ascending order, and for each distinct ancestor in the order of the first beam
// that has it, it calls emit(place in the list, t, ancestor, mask of the beams that have it).
// Returns the number of entries.
template <class AncestorOf, class Emit>
__device__ int list_distinct_keys(int length, int beams, const AncestorOf& ancestor_of,
                                  const Emit& emit) {
  const int lane = threadIdx.x % kWarp;
  int count = 0;
  for (int first = 0; first < length; first += kWarp) {
    const int t = first + lane;
    int ancestors[kTileBeams];
    // beam_mask[k] has a bit for each beam that has the ancestor of beam k. It is zero if an
    // earlier beam has this ancestor, too.
    unsigned beam_mask[kTileBeams] = {};
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
