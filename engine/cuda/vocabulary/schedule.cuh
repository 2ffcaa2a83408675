// How the vocabulary kernel (project.cu) cuts its work, and what lies in a block's shared memory.
#pragma once

#include "engine/cuda/device.cuh"
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kTileIds = 128;       // of an accumulator tile
constexpr int kWarpgroupRows = 64;  // of a warpgroup
constexpr int kBlockRows = 2 * kWarpgroupRows;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kWarpgroupWarps = kWarpgroup / kWarp;
constexpr int kDepth = 64;  // columns of a stage
constexpr std::uint32_t kStageBytes = 2 * kBoxBytes;
constexpr int kHeldBlocks = 8;  // of 64 columns of the rows, that registers have room for; the rest
                                // comes along with the weights
constexpr int kNext = 2 * kWarpgroup * 4;  // bytes from an entry of a thread to its next
constexpr int kBiasStages = 4;             // tiles whose bias is there
constexpr int kMostBlocks = 144;
constexpr int kMostSeeds = 4,
              kTilesOfSeed =
                  16;  // of a run; so many of its own tiles for each, as a seed takes as long
constexpr float kMinusInfinity = -INFINITY;
constexpr float kLog2E = 1.4426950408889634f;

struct Schedule {
  const float* bias;  // [V] or null
  const std::int32_t* never_chosen;
  int never_chosen_count;
  bool renormalize;
  int rows, vocabulary, tiles;
  int units;  // of all row blocks: a unit is a tile of a cluster's rows
  int list_splits;
  int seeds;          // tiles at most that come before a run that does not begin with the first one
  float2* sums;       // [R, tiles]
  TokenValue* lists;  // [R, list_splits, kCount]
};

template <int kCount>
struct alignas(1024) SharedStorage {
  // More than a tile has of 512 columns: one warpgroup may be a whole tile behind the other.
  static constexpr int kStages = kCount == 1 ? 12 : kCount == 8 ? 9 : 8;
  static constexpr int kEntries =
      kCount == 1   ? 1
      : kCount == 8 ? 20
                    : 24;  // of a thread's row at most: the best, wherever they lie, and 8
  unsigned char stages[kStages][kStageBytes];
  float values[2][kEntries]
              [2 * kWarpgroup];  // of each thread's two rows what may be among the best …
  std::int32_t tokens[2][kEntries][2 * kWarpgroup];  // … and its ids
  float bias[kBiasStages][kTileIds];  // −∞ where there is no id, or none that takes part
  std::uint32_t never[kBiasStages]
                     [kTileIds / 32];  // bits of ids that count in the sums, but are never chosen
  std::uint64_t full[kStages], empty[kStages], bias_full[kBiasStages], bias_empty[kBiasStages];
};

// Tiles [tile, end) of the row blocks of one cluster. Before them come the first `seeds` tiles of
// the vocabulary, of which only a bound for the rows' best is wanted: frequent tokens have low ids.
struct TileRange {
  int blocks, tile, end, seeds;
  __device__ int begin() const { return seeds > 0 ? 0 : tile; }
  __device__ int next(int i) const { return i + 1 == seeds ? tile : i + 1; }
  __device__ bool is_seed(int i) const { return i < tile; }
};

// A cluster's piece of the line.
struct TileRanges {
  int unit, end;
  __device__ explicit TileRanges(const Schedule& schedule) {
    const std::int64_t cluster = blockIdx.x / cluster_blocks(),
                       clusters = gridDim.x / cluster_blocks();
    unit = static_cast<int>(cluster * schedule.units / clusters);
    end = static_cast<int>((cluster + 1) * schedule.units / clusters);
  }
  __device__ bool next(const Schedule& schedule, TileRange& range) {
    if (unit == end) return false;
    range.blocks = unit / schedule.tiles;
    range.tile = unit - range.blocks * schedule.tiles;
    range.end = min(schedule.tiles, range.tile + end - unit);
    range.seeds = min(min(schedule.seeds, range.tile), (range.end - range.tile) / kTilesOfSeed);
    unit += range.end - range.tile;
    return true;
  }
};

// Of a block's 128 rows, the upper one of a consumer thread's two.
__device__ inline int row_of(int thread) { return thread / kWarp * 16 + thread % kWarp / 4; }

// The cluster that has this unit.
__host__ __device__ inline int cluster_of(std::int64_t unit, std::int64_t units,
                                          std::int64_t clusters) {
  return static_cast<int>(((unit + 1) * clusters - 1) / units);
}

// The first row of this block, and which of its rows' parts this cluster has.
__device__ inline int first_row_of(const TileRange& range) {
  return (range.blocks * static_cast<int>(cluster_blocks()) + static_cast<int>(rank_in_cluster())) *
         kBlockRows;
}
__device__ inline int split_of(const Schedule& schedule, const TileRange& range) {
  const std::int64_t cluster = cluster_blocks();
  return static_cast<int>(blockIdx.x / cluster) -
         cluster_of(static_cast<std::int64_t>(range.blocks) * schedule.tiles, schedule.units,
                    gridDim.x / cluster);
}

// Not −∞, which would be subtracted from −∞.
__device__ __forceinline__ float reference_of(float top) {
  return top == kMinusInfinity ? 0.0f : top;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace
}  // namespace xlate::cuda
