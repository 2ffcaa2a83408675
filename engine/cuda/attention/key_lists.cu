// Writes the key lists of a decoding step: for each beam tile the cache rows to which its beams
// attend, each once. The lists serve all layers and heads. A warp writes the lists of one beam
// tile.
#include <algorithm>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/beam_tile.cuh"
#include "engine/cuda/attention/key_lists.cuh"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

// Lists the keys of self-attention: for each earlier position one entry for each distinct ancestor
// of the beams, and at the end one entry for the new key of each beam. These have consecutive cache
// rows.
__device__ void list_self(const CacheView& cache, const SearchState& state, std::int64_t slot,
                          const TileWarp& warp, const KeyLists& lists) {
  const int stride = static_cast<int>(state.beams), lane = threadIdx.x % kWarp,
            length = state.length[slot];
  const std::uint8_t* ancestors = state.ancestor + slot * state.longest * stride + warp.first_beam;
  KeyEntry* list = lists.entries + warp.beam_tile * lists.stride;
  const int count = list_distinct_keys(
      length, warp.beams,
      [&](int t, int k) {
        return static_cast<int>(ancestors[static_cast<std::int64_t>(t) * stride + k]);
      },
      [&](int place, int t, int ancestor, unsigned beam_mask) {
        list[place] = {static_cast<std::int32_t>(cache_row(cache, slot, t, ancestor)),
                       beam_mask | static_cast<unsigned>(length - t) << kTileBeams};
      });
  const auto own = static_cast<std::int32_t>(cache_row(cache, slot, length, warp.first_beam));
  if (lane < warp.beams) list[count + lane] = {own + lane, 1u << lane};
  if (lane == 0) lists.headers[warp.beam_tile] = {count + warp.beams, own};
}

// Lists the keys of cross-attention, to which all beams attend.
__device__ void list_cross(const CacheView& cache, int source_length, std::int64_t slot,
                           const TileWarp& warp, const KeyLists& lists) {
  const int lane = threadIdx.x % kWarp;
  KeyEntry* list = lists.entries + warp.beam_tile * lists.stride;
  for (int t = lane; t < source_length; t += kWarp)
    list[t] = {static_cast<std::int32_t>(cache_row(cache, slot, t, 0)), ~0u};
  if (lane == 0) lists.headers[warp.beam_tile] = {source_length, 0};
}

__global__ void key_list_kernel(CacheView self, CacheView cross, const std::int32_t* source_lengths,
                                SearchState state, StepRows rows, KeyLists self_lists,
                                KeyLists cross_lists) {
  // Each thread of the first block zeroes one counter. A block has 128 threads, so there may be at
  // most 128 counters (kAttentionsOfAStep in attention.cpp). Further ones would not be zeroed.
  const int launch = static_cast<int>(threadIdx.x);
  if (blockIdx.x == 0 && launch < self_lists.launches) self_lists.taken[launch] = 0;
  if (blockIdx.x == 0 && launch < cross_lists.launches) cross_lists.taken[launch] = 0;
  const TileWarp warp(1, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t slot = rows.slots[warp.group];
  // The pages of a sentence that is done may have no place for another token, so its lists are
  // empty.
  if (slot < 0 || state.done[slot]) {
    if (threadIdx.x % kWarp == 0)
      self_lists.headers[warp.beam_tile] = cross_lists.headers[warp.beam_tile] = {0, 0};
    return;
  }
  list_self(self, state, slot, warp, self_lists);
  list_cross(cross, source_lengths[slot], slot, warp, cross_lists);
}

}  // namespace

std::int64_t key_list_count(std::int64_t groups, std::int64_t beams) {
  return groups * ((beams + kTileBeams - 1) / kTileBeams);
}

std::int64_t key_list_stride(std::int64_t positions, std::int64_t beams) {
  return std::max<std::int64_t>(kWarp, positions * std::min<std::int64_t>(beams, kTileBeams));
}

void build_key_lists(const CacheView& self, const CacheView& cross,
                     const std::int32_t* source_lengths, const SearchState& state,
                     const StepRows& rows, const KeyLists& self_lists, const KeyLists& cross_lists,
                     cudaStream_t stream) {
  const unsigned blocks = blocks_for(key_list_count(rows.groups, rows.beams), kWarpsPerBlock);
  key_list_kernel<<<blocks, kWarpsPerBlock * kWarp, 0, stream>>>(self, cross, source_lengths, state,
                                                                 rows, self_lists, cross_lists);
}

}  // namespace xlate::cuda
