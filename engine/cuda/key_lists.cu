// Where the keys of a step's rows lie, found once for all layers and heads: a warp per sentence and part of its beams.
#include <algorithm>

#include "engine/cuda/beam_tile.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

// The first position at which the hypotheses' histories differ: once on one line, they were so at all positions before.
__device__ int common_history(const std::uint8_t* ancestor, int beams_stride, int beams, int length) {
  if (beams == 1) return length + 1;
  for (int first = 0; first < length; first += kWarp) {
    const int t = first + threadIdx.x % kWarp;
    bool same = t < length;
    if (same) {
      const std::uint8_t* lines = ancestor + static_cast<std::int64_t>(t) * beams_stride;
      for (int k = 1; k < beams; ++k) same &= lines[k] == lines[0];
    }
    const unsigned all = __ballot_sync(kAllLanes, same);
    if (all != kAllLanes) return first + __ffs(static_cast<int>(~all)) - 1;
  }
  return length;
}

// First what all beams share, then for each later position an entry a beam, last the position of the token that enters now.
__device__ void list_self(const CacheView& cache, const SearchState& state, std::int64_t slot, const TileWarp& warp, const KeyLists& lists) {
  const int stride = static_cast<int>(state.beams), lane = threadIdx.x % kWarp, length = state.length[slot];
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * stride + warp.first_beam;
  const int common = common_history(ancestor, stride, warp.beams, length), entries = common + (length + 1 - common) * warp.beams;
  unsigned* list = lists.entries + warp.part * lists.stride;
  for (int i = lane; i < entries; i += kWarp) {
    const int beam = i < common ? 0 : (i - common) % warp.beams, t = i < common ? i : common + (i - common) / warp.beams;
    const int line = t == length ? warp.first_beam + beam : ancestor[static_cast<std::int64_t>(t) * stride + beam];
    list[i] = KeyEntry::of(cache_row(cache, slot, t, line), i < common ? KeyEntry::kAll : static_cast<unsigned>(beam)).packed;
  }
  if (lane == 0) lists.heads[warp.part] = {entries, static_cast<int>(cache_row(cache, slot, length, warp.first_beam))};
}

__device__ void list_cross(const CacheView& cache, int source_length, std::int64_t slot, const TileWarp& warp, const KeyLists& lists) {
  const int lane = threadIdx.x % kWarp;
  unsigned* list = lists.entries + warp.part * lists.stride;
  for (int t = lane; t < source_length; t += kWarp) list[t] = KeyEntry::of(cache_row(cache, slot, t, 0), KeyEntry::kAll).packed;
  if (lane == 0) lists.heads[warp.part] = {source_length, 0};
}

__global__ void key_list_kernel(CacheView self, CacheView cross, const std::int32_t* source_lengths, SearchState state, StepRows rows, KeyLists self_lists,
                                KeyLists cross_lists) {
  const TileWarp warp(1, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t slot = rows.slots[warp.group];
  if (slot < 0 || state.done[slot]) {  // a sentence that is done may have taken all its pages
    if (threadIdx.x % kWarp == 0) self_lists.heads[warp.part] = cross_lists.heads[warp.part] = {0, 0};
    return;
  }
  list_self(self, state, slot, warp, self_lists);
  list_cross(cross, source_lengths[slot], slot, warp, cross_lists);
}

}  // namespace

std::int64_t key_list_parts(std::int64_t groups, std::int64_t beams) { return groups * ((beams + kTileBeams - 1) / kTileBeams); }

std::int64_t key_list_stride(std::int64_t positions, std::int64_t beams) { return std::max<std::int64_t>(kWarp, positions * std::min<std::int64_t>(beams, kTileBeams)); }

void list_keys(const CacheView& self, const CacheView& cross, const std::int32_t* source_lengths, const SearchState& state, const StepRows& rows,
               const KeyLists& self_lists, const KeyLists& cross_lists, cudaStream_t stream) {
  const unsigned blocks = blocks_for(key_list_parts(rows.groups, rows.beams), kWarpsPerBlock);
  key_list_kernel<<<blocks, kWarpsPerBlock * kWarp, 0, stream>>>(self, cross, source_lengths, state, rows, self_lists, cross_lists);
}

}  // namespace xlate::cuda
