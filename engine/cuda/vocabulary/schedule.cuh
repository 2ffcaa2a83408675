// How the vocabulary kernel (project.cu) divides its work, and the layout of a block's shared
// memory. A tile is 128 ids of the vocabulary. A row block is the rows of one cluster, 128 for each
// of its thread blocks. A unit of work is one tile for one row block. The units stand in one
// sequence, row block by row block. Every cluster has a contiguous part of it, all parts being
// equal to within a unit. What a cluster has of one row block is a range (TileRange).
#pragma once

#include "engine/cuda/device.cuh"
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kTileIds = 128;
constexpr int kWarpgroupRows = 64;
constexpr int kBlockRows = 2 * kWarpgroupRows;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kWarpgroupWarps = kWarpgroup / kWarp;
constexpr int kDepth = 64;  // The columns of rows or of weights that a stage holds.
constexpr std::uint32_t kStageBytes = 2 * kBoxBytes;
// Registers can hold this many column blocks of the rows, of 64 columns each. The other columns are
// loaded again with the weights of every tile.
constexpr int kHeldBlocks = 8;
constexpr int kNext = 2 * kWarpgroup * 4;  // The bytes from an entry of a thread to its next one.
constexpr int kBiasStages = 4;             // The number of tiles whose bias is held at once.
// The largest grid, in thread blocks. A row can have as many lists as there are clusters, so this
// must not exceed kMostListSplits. It also bounds the lists in scratch memory.
constexpr int kMostBlocks = 144;
// A range has at most kMostSeeds seeds, and at most one for every kTilesOfSeed of its own tiles,
// because a seed takes nearly as long as a tile.
constexpr int kMostSeeds = 4, kTilesOfSeed = 16;
constexpr float kMinusInfinity = -INFINITY;
constexpr float kLog2E = 1.4426950408889634f;

// Schedule says how the work is divided among all clusters.
struct Schedule {
  const float* bias;  // [V] or null
  const std::int32_t* never_chosen;
  int never_chosen_count;
  bool renormalize;
  int rows, vocabulary, tiles;
  int units;          // The number of row blocks times `tiles`.
  int list_splits;    // The largest number of clusters that work at one row block.
  int seeds;          // The largest number of seeds of a range (TileRange).
  float2* sums;       // [R, tiles]
  TokenValue* lists;  // [R, list_splits, kCount]
};

// The shared memory of a block that finds kCount candidates.
template <int kCount>
struct alignas(1024) SharedStorage {
  // There are at least 8 stages, as many as a tile of 512 columns has, because one warpgroup may be
  // a whole tile behind the other.
  static constexpr int kStages = kCount == 1 ? 12 : kCount == 8 ? 9 : 8;
  // The largest number of entries that a thread has of a row. With several candidates it is at
  // least kCount + 8: all kCount best may be in one thread, and 8 more are appended at once.
  static constexpr int kEntries = kCount == 1 ? 1 : kCount == 8 ? 20 : 24;
  unsigned char stages[kStages][kStageBytes];
  // The values and the ids that may be among the best, of the two rows of each thread. `tokens`
  // must lie directly behind `values`, because CandidateBuffer::append_one addresses it so.
  float values[2][kEntries][2 * kWarpgroup];
  std::int32_t tokens[2][kEntries][2 * kWarpgroup];
  // The bias is −∞ where there is no id, and with `renormalize` where the id is never chosen.
  float bias[kBiasStages][kTileIds];
  // A bit is set for each id that counts in the sums and is never chosen.
  std::uint32_t never[kBiasStages][kTileIds / 32];
  std::uint64_t full[kStages], empty[kStages], bias_full[kBiasStages], bias_empty[kBiasStages];
};
// With several candidates the shared memory is exactly the 232,448 bytes that a block may have.
static_assert(sizeof(SharedStorage<8>) == 232448 && sizeof(SharedStorage<16>) == 232448);

// TileRange is the tiles [tile, end) of the row block with the number `blocks`. The first `seeds`
// tiles of the vocabulary are processed before them. These only give the rows their first bounds,
// which are high because frequent tokens have low ids.
struct TileRange {
  int blocks, tile, end, seeds;
  __device__ int begin() const { return seeds > 0 ? 0 : tile; }
  __device__ int next(int i) const { return i + 1 == seeds ? tile : i + 1; }
  __device__ bool is_seed(int i) const { return i < tile; }
};

// The units [unit, end) of a cluster. next() takes the first range of what is left, which belongs
// to one row block, and returns false if nothing is left.
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

// Returns which of a block's 128 rows is the first one of a consumer thread. Its second row is 8
// further on.
__device__ inline int row_of(int thread) { return thread / kWarp * 16 + thread % kWarp / 4; }

// Returns the cluster that has this unit.
__host__ __device__ inline int cluster_of(std::int64_t unit, std::int64_t units,
                                          std::int64_t clusters) {
  return static_cast<int>(((unit + 1) * clusters - 1) / units);
}

// Returns the first row of this block.
__device__ inline int first_row_of(const TileRange& range) {
  return (range.blocks * static_cast<int>(cluster_blocks()) + static_cast<int>(rank_in_cluster())) *
         kBlockRows;
}
// Returns which list of its rows this cluster writes.
__device__ inline int split_of(const Schedule& schedule, const TileRange& range) {
  const std::int64_t cluster = cluster_blocks();
  return static_cast<int>(blockIdx.x / cluster) -
         cluster_of(static_cast<std::int64_t>(range.blocks) * schedule.tiles, schedule.units,
                    gridDim.x / cluster);
}

// Returns what powers are taken relative to: `top`, or 0 for −∞, which must not be subtracted from
// −∞.
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
