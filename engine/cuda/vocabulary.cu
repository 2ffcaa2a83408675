// The vocabulary product with its log-sum and best candidates, for compute capability 9.0: logits live in accumulators only.
// A block holds 128 rows, 64 in the registers of each of two warpgroups, and streams the weights past them in tiles of 128 ids: 64 columns at a
// time through a ring in shared memory, filled by a thread of a third warpgroup; in a cluster each of two blocks loads half and sends it to both.
// The warpgroups multiply in turns: while one's products run, the other takes its tile apart. An accumulator row lies in the four lanes of a quad.
// The work is the line of (row blocks, segment of 256 ids), cut into equal pieces. Nothing that a row's results depend on is cut: products sum the
// inner dimension in one order, exponentials are summed per segment, and best lists are exact, so that merge_rows finds the same bits whatever the
// cuts. Float32 throughout; 16-bit only in the product's inputs.
#include "engine/cuda/device.cuh"
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kTileIds = 128;      // of an accumulator tile
constexpr int kSegmentTiles = 2;   // summed as one
constexpr int kGroupRows = 64;     // of a warpgroup
constexpr int kBlockRows = 2 * kGroupRows;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kGroupWarps = kWarpgroup / kWarp;
constexpr int kDepth = 64;         // columns of a stage
constexpr std::uint32_t kStageBytes = 2 * kBoxBytes;
constexpr int kHeldBlocks = 8;     // of 64 columns of the rows, that registers have room for; the rest comes along with the weights
constexpr int kNext = 2 * kWarpgroup * 4;  // bytes from an entry of a thread to its next
constexpr int kSlots = 4;          // tiles whose bias is there
constexpr int kMostBlocks = 144;
constexpr float kNone = -INFINITY;
constexpr float kLog2E = 1.4426950408889634f;

struct Work {
  const float* bias;                 // [V] or null
  const std::int32_t* never_chosen;
  int never_chosen_count;
  bool renormalize;
  int rows, vocabulary, tiles;
  int segments, units;               // of all row blocks: a unit is a segment of a cluster's rows
  int list_parts;
  float2* sums;                      // [R, segments]
  TokenValue* lists;                 // [R, list_parts, kCount]
};

template <int kCount>
struct alignas(1024) Memory {
  // More than a tile has of 512 columns: one warpgroup may be a whole tile behind the other.
  static constexpr int kStages = kCount == 1 ? 12 : kCount == 8 ? 9 : 8;
  static constexpr int kEntries = kCount == 1 ? 1 : kCount == 8 ? 20 : 24;  // of a thread's row at most: the best, wherever they lie, and 8
  unsigned char stages[kStages][kStageBytes];
  float values[2][kEntries][2 * kWarpgroup];         // of each thread's two rows what may be among the best …
  std::int32_t tokens[2][kEntries][2 * kWarpgroup];  // … and its ids
  float bias[kSlots][kTileIds];                                  // −∞ where there is no id, or none that takes part
  std::uint32_t never[kSlots][kTileIds / 32];                    // bits of ids that count in the sums, but are never chosen
  std::uint64_t full[kStages], empty[kStages], bias_full[kSlots], bias_empty[kSlots];
};

// A place in a ring, and the parity of its round.
template <int kPlaces>
struct Ring {
  int place = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++place == kPlaces) place = 0, parity ^= 1;
  }
};

// Tiles [tile, end) of the row blocks of one cluster.
struct Run {
  int blocks, tile, end;
};

// A cluster's piece of the line.
struct Runs {
  int unit, end;
  __device__ explicit Runs(const Work& work) {
    const std::int64_t cluster = blockIdx.x / cluster_blocks(), clusters = gridDim.x / cluster_blocks();
    unit = static_cast<int>(cluster * work.units / clusters);
    end = static_cast<int>((cluster + 1) * work.units / clusters);
  }
  __device__ bool next(const Work& work, Run& run) {
    if (unit == end) return false;
    run.blocks = unit / work.segments;
    const int segment = unit - run.blocks * work.segments, last = min(work.segments, segment + end - unit);
    run.tile = segment * kSegmentTiles;
    run.end = min(last * kSegmentTiles, work.tiles);
    unit += last - segment;
    return true;
  }
};

// Of a block's 128 rows, the upper one of a consumer thread's two.
__device__ inline int row_of(int thread) { return thread / kWarp * 16 + thread % kWarp / 4; }

// The cluster that has this unit.
__host__ __device__ inline int cluster_of(std::int64_t unit, std::int64_t units, std::int64_t clusters) {
  return static_cast<int>(((unit + 1) * clusters - 1) / units);
}

// The first row of this block, and which of its rows' parts this cluster has.
__device__ inline int first_row_of(const Run& run) { return (run.blocks * static_cast<int>(cluster_blocks()) + static_cast<int>(rank_in_cluster())) * kBlockRows; }
__device__ inline int part_of(const Work& work, const Run& run) {
  const std::int64_t cluster = cluster_blocks();
  return static_cast<int>(blockIdx.x / cluster) - cluster_of(static_cast<std::int64_t>(run.blocks) * work.segments, work.units, gridDim.x / cluster);
}

// Not −∞, which would be subtracted from −∞.
__device__ __forceinline__ float reference_of(float top) { return top == kNone ? 0.0f : top; }

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Fills the ring: the rows' blocks at the beginning of a run, then each tile's weights. One thread.
template <int kBlocks, int kCount>
__device__ void load_stages(Memory<kCount>& memory, const CUtensorMap& hidden, const CUtensorMap& weight, const Work& work) {
  Ring<Memory<kCount>::kStages> ring;
  const std::uint32_t cluster = cluster_blocks(), rank = rank_in_cluster();
  const auto next_stage = [&](std::uint32_t& full) {
    wait(shared_address(&memory.empty[ring.place]), ring.parity ^ 1);
    full = shared_address(&memory.full[ring.place]);
    arrive_expecting(full, kStageBytes);
    const std::uint32_t stage = shared_address(memory.stages[ring.place]);
    ring.advance();
    return stage;
  };
  const auto load_rows = [&](int block, int row) {
    std::uint32_t full;
    const std::uint32_t stage = next_stage(full);
    load_box(stage, hidden, block * kDepth, row, full);
    load_box(stage + kBoxBytes, hidden, block * kDepth, row + kGroupRows, full);
  };
  Run run;
  for (Runs runs(work); runs.next(work, run);) {
    const int row = (run.blocks * cluster + rank) * kBlockRows;
    for (int block = 0; block < min(kBlocks, kHeldBlocks); ++block) load_rows(block, row);
    for (int tile = run.tile; tile < run.end; ++tile) {
      for (int block = 0; block < kBlocks; ++block) {
        if (block >= kHeldBlocks) load_rows(block, row);
        std::uint32_t full;
        const std::uint32_t stage = next_stage(full);
        if (cluster > 1) {
          load_box_for(3, stage + rank * kBoxBytes, weight, block * kDepth, tile * kTileIds + rank * 64, full);
        } else {
          load_box(stage, weight, block * kDepth, tile * kTileIds, full);
          load_box(stage + kBoxBytes, weight, block * kDepth, tile * kTileIds + 64, full);
        }
      }
    }
  }
}

// Puts each tile's bias and marks ready. One warp, four ids a lane.
template <int kCount>
__device__ void load_biases(Memory<kCount>& memory, const Work& work) {
  const int lane = threadIdx.x % kWarp;
  Ring<kSlots> slot;
  Run run;
  for (Runs runs(work); runs.next(work, run);) {
    for (int tile = run.tile; tile < run.end; ++tile, slot.advance()) {
      const int first = tile * kTileIds + 4 * lane;
      float bias[4];
      std::uint32_t never = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) bias[i] = first + i >= work.vocabulary ? kNone : work.bias ? work.bias[first + i] : 0.0f;
      for (int i = 0; i < work.never_chosen_count; i += kWarp) {
        const int id = i + lane < work.never_chosen_count ? work.never_chosen[i + lane] : -1;
        for (unsigned found = __ballot_sync(kAllLanes, id >= 0 && id / kTileIds == tile); found; found &= found - 1) {
          const int place = __shfl_sync(kAllLanes, id, __ffs(found) - 1) - first;
          if (place >= 0 && place < 4) never |= 1u << place;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (work.renormalize && (never >> i & 1)) bias[i] = kNone;
      }
      if (work.renormalize) never = 0;  // as if there were no such ids
      never <<= 4 * (lane % 8);
      for (int offset = 1; offset < 8; offset *= 2) never |= __shfl_xor_sync(kAllLanes, never, offset);
      wait(shared_address(&memory.bias_empty[slot.place]), slot.parity ^ 1);
      *reinterpret_cast<float4*>(&memory.bias[slot.place][4 * lane]) = make_float4(bias[0], bias[1], bias[2], bias[3]);
      if (lane % 8 == 0) memory.never[slot.place][lane / 8] = never;
      __syncwarp();
      if (lane == 0) arrive(shared_address(&memory.bias_full[slot.place]));
    }
  }
}

// A thread's part of two rows (h = 0, 1) over a run: d as in hopper.cuh.
struct RowState {
  float top[2], sum[2];  // of a segment's powers of two: sum·2^top
  float bound[2];        // what is not above it is not among the row's best; with one candidate, the thread's best so far
  int token[2];          // of that
  float highest[2];      // of the tile

  template <int kRow, int kPart>
  __device__ __forceinline__ static float highest_in(const float (&d)[64]) {
    float most = d[16 * kPart + 2 * kRow];
#pragma unroll
    for (int i = 1; i < 8; ++i) most = fmaxf(most, d[16 * kPart + i / 2 * 4 + 2 * kRow + i % 2]);
    return most;
  }
  template <int kRow>
  __device__ __forceinline__ static float highest_of(const float (&d)[64]) {
    return fmaxf(fmaxf(highest_in<kRow, 0>(d), highest_in<kRow, 1>(d)), fmaxf(highest_in<kRow, 2>(d), highest_in<kRow, 3>(d)));
  }
  __device__ __forceinline__ void find_highest(const float (&d)[64]) { highest[0] = highest_of<0>(d), highest[1] = highest_of<1>(d); }

  // The tile's exponentials, as powers of two, are added in one order; first what was there is made relative to the new top.
  __device__ __forceinline__ void raise_top() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float next = fmaxf(top[h], highest[h] * kLog2E);
      sum[h] *= exp2_fast(top[h] - reference_of(next));
      top[h] = next;
    }
  }
  template <int kHalf>
  __device__ __forceinline__ static void fold(float (&d)[64]) {
#pragma unroll
    for (int i = 0; i < kHalf; ++i) d[i] += d[i + kHalf];
  }
  // Of d nothing is left: there are no registers for the powers beside it.
  __device__ __forceinline__ void add_powers(float (&d)[64]) {
    const float reference[2] = {reference_of(top[0]), reference_of(top[1])};
#pragma unroll
    for (int i = 0; i < 64; ++i) d[i] = exp2_fast(fmaf(d[i], kLog2E, -reference[i / 2 % 2]));
    fold<32>(d);
    fold<16>(d);
    fold<8>(d);
    fold<4>(d);
    sum[0] += d[0] + d[1];
    sum[1] += d[2] + d[3];
  }

  // With one candidate: the first of the largest.
  template <int kRow>
  __device__ __forceinline__ void keep_best(const float (&d)[64], int first_id) {
    const float best = highest[kRow];
    if (!(best > bound[kRow])) return;
    bound[kRow] = best;
#pragma unroll
    for (int j = 15; j >= 0; --j) {
#pragma unroll
      for (int b = 1; b >= 0; --b) {
        if (d[4 * j + 2 * kRow + b] == best) token[kRow] = first_id + 8 * j + b;
      }
    }
  }

  // With several, to begin with: each of a quad's threads has kLeast values or more above the new bound.
  template <int kLeast>
  __device__ __forceinline__ void bound_below(const float (&d)[64]) {
    bound_row_below<0, kLeast>(d);
    bound_row_below<1, kLeast>(d);
  }
  template <int kRow, int kLeast>
  __device__ __forceinline__ void bound_row_below(const float (&d)[64]) {
    const float a = highest_in<kRow, 0>(d), b = highest_in<kRow, 1>(d), c = highest_in<kRow, 2>(d), e = highest_in<kRow, 3>(d);
    // The second largest of the four, or the least.
    float most = kLeast <= 2 ? fmaxf(fminf(fmaxf(a, b), fmaxf(c, e)), fmaxf(fminf(a, b), fminf(c, e))) : fminf(fminf(a, b), fminf(c, e));
    most = fminf(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = fminf(most, __shfl_xor_sync(kAllLanes, most, 2));
    bound[kRow] = fmaxf(most - (fabsf(most) * 1e-6f + 1e-30f), kNone);  // not NaN with infinite ones
  }
};

__device__ __forceinline__ bool better(const TokenValue& a, const TokenValue& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// With several candidates each thread keeps, of each of its two rows, what was above the row's bound when it came: values and ids in shared memory,
// in no order. Where room runs out the bound is raised to the kCount-th best of the quad's, or somewhat less, and what is below it goes.
template <int kCount>
struct Keeper {
  static constexpr int kSorted = kCount / 2;
  Memory<kCount>& memory;
  int thread;
  std::uint32_t to[2];  // where the next entry goes

  __device__ __forceinline__ std::uint32_t begin_of(int row) const { return shared_address(&memory.values[row][0][thread]); }
  __device__ __forceinline__ int count_of(int row) const { return static_cast<int>(to[row] - begin_of(row)) / kNext; }
  __device__ __forceinline__ void clear() { to[0] = begin_of(0), to[1] = begin_of(1); }
  // Whether every thread of the warp has room for 8 entries more of each row.
  __device__ __forceinline__ bool has_room() const {
    return !__any_sync(kAllLanes, count_of(0) > Memory<kCount>::kEntries - 8 || count_of(1) > Memory<kCount>::kEntries - 8);
  }

  template <int kRow, int kPart, int kValue>
  __device__ __forceinline__ void append_one(const float (&d)[64], float bound, int first_id) {
    // Ids lie behind all values. Two stores: a pair would have to lie in two adjacent registers, which all of d's would then be kept free for.
    asm volatile(
        "{\n .reg .pred above;\n .reg .b32 id;\n setp.gt.f32 above, %1, %2;\n add.s32 id, %3, %4;\n @above st.shared.f32 [%0], %1;\n"
        " @above st.shared.s32 [%0+%5], id;\n @above add.u32 %0, %0, %6;\n}"
        : "+r"(to[kRow])
        : "f"(d[16 * kPart + kValue / 2 * 4 + 2 * kRow + kValue % 2]), "f"(bound), "r"(first_id), "n"(32 * kPart + kValue / 2 * 8 + kValue % 2),
          "n"(Memory<kCount>::kEntries * 2 * kNext), "n"(kNext)
        : "memory");
  }
  template <int kRow, int kPart>
  __device__ __forceinline__ void append_row(const float (&d)[64], float bound, int first_id) {
    append_one<kRow, kPart, 0>(d, bound, first_id), append_one<kRow, kPart, 1>(d, bound, first_id);
    append_one<kRow, kPart, 2>(d, bound, first_id), append_one<kRow, kPart, 3>(d, bound, first_id);
    append_one<kRow, kPart, 4>(d, bound, first_id), append_one<kRow, kPart, 5>(d, bound, first_id);
    append_one<kRow, kPart, 6>(d, bound, first_id), append_one<kRow, kPart, 7>(d, bound, first_id);
  }
  // What is above the bounds in 32 columns; false where there might be no room.
  template <int kPart>
  __device__ __forceinline__ bool append(const float (&d)[64], const RowState& state, int first_id) {
    const bool first = __any_sync(kAllLanes, RowState::highest_in<0, kPart>(d) > state.bound[0]);
    const bool second = __any_sync(kAllLanes, RowState::highest_in<1, kPart>(d) > state.bound[1]);
    if (!first && !second) return true;
    if (!has_room()) return false;
    if (first) append_row<0, kPart>(d, state.bound[0], first_id);
    if (second) append_row<1, kPart>(d, state.bound[1], first_id);
    return true;
  }

  // Keeps entries from `first` on that `keep` says.
  template <class Keep>
  __device__ __forceinline__ int filter(int row, int first, int count, const Keep& keep) {
    int kept = first;
    for (int i = first; i < count; ++i) {
      const TokenValue entry{memory.values[row][i][thread], memory.tokens[row][i][thread]};
      if (!keep(entry)) continue;
      memory.values[row][kept][thread] = entry.value, memory.tokens[row][kept][thread] = entry.token;
      ++kept;
    }
    return kept;
  }

  // The kCount-th largest of the quad's values, of which each lane names its kSorted largest in falling order: or one that is a little further down.
  __device__ __forceinline__ static float bound_of(const float (&own)[kSorted]) {
    float pair[2 * kSorted];  // of two lanes, sorted by a bitonic network
#pragma unroll
    for (int i = 0; i < kSorted; ++i) {
      const float other = __shfl_xor_sync(kAllLanes, own[kSorted - 1 - i], 1);
      pair[i] = fmaxf(own[i], other), pair[kSorted + i] = fminf(own[i], other);
    }
#pragma unroll
    for (int half = kSorted / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < 2 * kSorted; ++i) {
        if (i & half) continue;
        const float high = fmaxf(pair[i], pair[i + half]), low = fminf(pair[i], pair[i + half]);
        pair[i] = high, pair[i + half] = low;
      }
    }
    float least = INFINITY;
#pragma unroll
    for (int i = 0; i < 2 * kSorted; ++i) least = fminf(least, fmaxf(pair[i], __shfl_xor_sync(kAllLanes, pair[2 * kSorted - 1 - i], 2)));
    return least;
  }
  __device__ __forceinline__ float raise(int row, float bound, int& count) {
    float own[kSorted];
#pragma unroll
    for (int k = 0; k < kSorted; ++k) own[k] = kNone;
    for (int i = 0; i < count; ++i) {
      float value = memory.values[row][i][thread];
#pragma unroll
      for (int k = 0; k < kSorted; ++k) {
        const float high = fmaxf(own[k], value);
        value = fminf(own[k], value), own[k] = high;
      }
    }
    __syncwarp();
    const float raised = fmaxf(bound, bound_of(own));
    // What equals the bound may still be among the best, by its id; what comes later and equals it is not.
    count = filter(row, 0, count, [&](const TokenValue& entry) { return entry.value >= raised; });
    return raised;
  }

  // Calls take(rank, entry) for the quad's best kCount entries, in order; (−∞, INT32_MAX) where there are fewer. Returns the last.
  template <class Take>
  __device__ __forceinline__ TokenValue find_best(int row, int count, const Take& take) const {
    TokenValue last{INFINITY, -1};
#pragma unroll 1
    for (int rank = 0; rank < kCount; ++rank) {
      TokenValue best{kNone, INT32_MAX};
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        const TokenValue entry{memory.values[row][i][thread], memory.tokens[row][i][thread]};
        if (better(last, entry) && better(entry, best)) best = entry;
      }
      __syncwarp();
#pragma unroll
      for (int offset = 1; offset < 4; offset *= 2) {
        const TokenValue other{__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.token, offset)};
        if (better(other, best)) best = other;
      }
      take(rank, best);
      last = best;
    }
    return last;
  }

  // Makes room for 8 entries more of each row.
  __device__ __forceinline__ void make_room(RowState& state) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      int count = count_of(h);
      state.bound[h] = raise(h, state.bound[h], count);
      if (__any_sync(kAllLanes, count > Memory<kCount>::kEntries - 8)) {  // equal values, or nearly all in one lane: exactly
        const TokenValue last = find_best(h, count, [](int, const TokenValue&) {});
        count = filter(h, 0, count, [&](const TokenValue& entry) { return !better(last, entry); });
        state.bound[h] = fmaxf(state.bound[h], last.value);
      }
      to[h] = begin_of(h) + count * kNext;
    }
  }

  // Takes what is above the rows' bounds, 32 columns at a time. Later columns have later ids: they must be above what was taken before.
  // `never` has the marks of a tile, or is null.
  __device__ __forceinline__ void take(RowState& state, const float (&d)[64], int tile, const std::uint32_t* never) {
    if (!__any_sync(kAllLanes, state.highest[0] > state.bound[0] || state.highest[1] > state.bound[1])) return;
    const int first_id = tile * kTileIds + 2 * (thread % 4);
    for (int part = 0; part < 4;) {
      const int before[2] = {count_of(0), count_of(1)};
      if (part == 0) part += append<0>(d, state, first_id);
      if (part == 1) part += append<1>(d, state, first_id);
      if (part == 2) part += append<2>(d, state, first_id);
      if (part == 3) part += append<3>(d, state, first_id);
      if (never) {
        const auto chosen = [&](const TokenValue& entry) { return !(never[entry.token % kTileIds / 32] >> entry.token % 32 & 1); };
        to[0] = begin_of(0) + filter(0, before[0], count_of(0), chosen) * kNext;
        to[1] = begin_of(1) + filter(1, before[1], count_of(1), chosen) * kNext;
        __syncwarp();
      }
      if (part < 4) make_room(state);
    }
  }
};

// One of the two warpgroups that multiply.
template <class T, int kBlocks, int kCount>
struct Consumer {
  static constexpr int kHeld = kBlocks < kHeldBlocks ? kBlocks : kHeldBlocks;
  static constexpr bool kTurns = kBlocks <= kHeldBlocks;  // the ring has room for one to be a tile behind

  Memory<kCount>& memory;
  const Work& work;
  int thread;  // of both warpgroups
  int group, lane;
  std::uint32_t cluster;
  Ring<Memory<kCount>::kStages> ring;
  Ring<kSlots> slot;

  __device__ __forceinline__ std::uint32_t stage_at(int place) const { return shared_address(memory.stages[place]); }
  __device__ __forceinline__ int take_stage() {
    const int place = ring.place;
    wait(shared_address(&memory.full[place]), ring.parity);
    ring.advance();
    return place;
  }
  // Both blocks' weights come into both: each asks the other's leave.
  __device__ __forceinline__ void release(int place) {
    __syncwarp();
    if (lane < static_cast<int>(cluster)) arrive_in(shared_address(&memory.empty[place]), static_cast<std::uint32_t>(lane));
  }

  __device__ __forceinline__ void hold_rows(std::uint32_t (&rows)[4 * kHeld][4]) {
    const int row = thread / kWarp % 4 * 16 + lane % 16;
#pragma unroll
    for (int block = 0; block < kHeld; ++block) {
      const int place = take_stage();
      const std::uint32_t line = stage_at(place) + group * kBoxBytes + row * 128;
#pragma unroll
      for (int k = 0; k < 4; ++k) load_matrices(rows[4 * block + k], line + ((2 * k + lane / 16) ^ (row % 8)) * 16);
      release(place);
    }
  }

  __device__ __forceinline__ void multiply_tile(float (&d)[64], const std::uint32_t (&rows)[4 * kHeld][4]) {
    int last = 0, last_rows = 0;
    if (kTurns) wait_for_turn(1 + group);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const int own = block < kHeld ? 0 : take_stage(), place = take_stage();
      const std::uint64_t weights = matrix_at(stage_at(place)), others = matrix_at(stage_at(own) + group * kBoxBytes);
      begin_products();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (block < kHeld) multiply<T>(d, rows[block % kHeld * 4 + k], weights + 2 * k, block + k > 0);
        else multiply<T>(d, others + 2 * k, weights + 2 * k, 1);
      }
      commit_products();
      if (block > 0) {
        wait_for_products<1>();
        release(last);
        if (block > kHeld) release(last_rows);
      }
      last = place, last_rows = own;
    }
    if (kTurns && give_next) give_turn(2 - group);
    finish_products(d);
    release(last);
    if (kBlocks > kHeld) release(last_rows);
  }
  bool give_next = true;

  __device__ __forceinline__ void add_bias(float (&d)[64]) {
    const float* bias = memory.bias[slot.place] + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float2 two = *reinterpret_cast<const float2*>(bias + 8 * j);
      d[4 * j] += two.x, d[4 * j + 1] += two.y, d[4 * j + 2] += two.x, d[4 * j + 3] += two.y;
    }
  }
  // With one candidate, what is never chosen goes, once it is in the sums. Rare, so that it is to need few registers: a column at a time.
  __device__ __forceinline__ void forbid(RowState& state, float (&d)[64]) {
    for (int word = 0; word < kTileIds / 32; ++word) {
      for (std::uint32_t bits = memory.never[slot.place][word]; bits; bits &= bits - 1) {
        const int column = 32 * word + __ffs(static_cast<int>(bits)) - 1 - 2 * (lane % 4);
        float value[2] = {kNone, kNone};
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          if (column == i / 4 * 8 + i % 2) value[i / 2 % 2] = d[i], d[i] = kNone;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) state.sum[h] += exp2_fast(fmaf(value[h], kLog2E, -reference_of(state.top[h])));
      }
    }
    state.find_highest(d);
  }

  __device__ __forceinline__ void take_apart(RowState& state, Keeper<kCount>& keeper, float (&d)[64], int tile, bool is_first) {
    wait(shared_address(&memory.bias_full[slot.place]), slot.parity);
    add_bias(d);
    state.find_highest(d);
    state.raise_top();
    const std::uint32_t* words = memory.never[slot.place];
    const int never = __popc(words[0]) + __popc(words[1]) + __popc(words[2]) + __popc(words[3]);
    if constexpr (kCount == 1) {
      if (never) forbid(state, d);
      state.template keep_best<0>(d, tile * kTileIds + 2 * (lane % 4));
      state.template keep_best<1>(d, tile * kTileIds + 2 * (lane % 4));
    } else {
      if (is_first && never <= 16 - kCount) {
        if (never) state.template bound_below<4>(d);
        else state.template bound_below<kCount / 4>(d);
      }
      keeper.take(state, d, tile, never ? words : nullptr);
    }
    __syncwarp();
    if (lane == 0) arrive(shared_address(&memory.bias_empty[slot.place]));
    slot.advance();
    keep_behind(d);
    state.add_powers(d);
  }

  // Sums of a segment, over the quad.
  __device__ __forceinline__ void write_sums(RowState& state, int row, int segment) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = fmaxf(state.top[h], __shfl_xor_sync(kAllLanes, state.top[h], 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      float sum = state.sum[h] * exp2_fast(state.top[h] - reference_of(top));
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      if (lane % 4 == 0 && row + 8 * h < work.rows) work.sums[static_cast<std::int64_t>(row + 8 * h) * work.segments + segment] = make_float2(top, sum);
      state.top[h] = kNone, state.sum[h] = 0;
    }
  }

  // To part `part` of the rows' lists; the last of a row's parts is followed by empty ones.
  __device__ __forceinline__ void write_lists(RowState& state, Keeper<kCount>& keeper, int row, int part, bool last) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      TokenValue* out = work.lists + (static_cast<std::int64_t>(row + 8 * h) * work.list_parts + part) * kCount;
      const bool writes = row + 8 * h < work.rows && lane % 4 == 0;
      if constexpr (kCount == 1) {
        TokenValue best{state.bound[h], state.token[h]};
#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
          const TokenValue other{__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.token, offset)};
          if (better(other, best)) best = other;
        }
        if (writes) *out = best;
      } else {
        int count = keeper.count_of(h);
        keeper.raise(h, state.bound[h], count);
        keeper.find_best(h, count, [&](int rank, const TokenValue& entry) {
          if (writes) out[rank] = entry;
        });
      }
      for (int i = kCount; writes && last && i < (work.list_parts - part) * kCount; ++i) out[i] = {kNone, 0};
    }
  }

  // Of a run in which this warpgroup has no rows: it only keeps the others going.
  __device__ void pass_run(const Run& run, bool last_run) {
    for (int i = 0; i < kHeld; ++i) release(take_stage());
    for (int tile = run.tile; tile < run.end; ++tile, slot.advance()) {
      if (kTurns) wait_for_turn(1 + group);
      for (int i = 0; i < kBlocks + (kBlocks - kHeld); ++i) release(take_stage());
      if (kTurns && !(last_run && group == 1 && tile + 1 == run.end)) give_turn(2 - group);
      wait(shared_address(&memory.bias_full[slot.place]), slot.parity);
      __syncwarp();
      if (lane == 0) arrive(shared_address(&memory.bias_empty[slot.place]));
    }
  }

  __device__ __forceinline__ void work_run(const Run& run, bool last_run, int first_row) {
    std::uint32_t rows[4 * kHeld][4];
    float d[64];
    RowState state{{kNone, kNone}, {0, 0}, {kNone, kNone}, {0, 0}, {}};
    Keeper<kCount> keeper{memory, thread, {}};
    keeper.clear();
    hold_rows(rows);
    for (int tile = run.tile; tile < run.end; ++tile) {
      give_next = !(last_run && group == 1 && tile + 1 == run.end);  // the other one has ended
      multiply_tile(d, rows);
      take_apart(state, keeper, d, tile, tile == run.tile);
      if (tile % kSegmentTiles == kSegmentTiles - 1 || tile + 1 == work.tiles) write_sums(state, first_row + row_of(thread), tile / kSegmentTiles);
    }
    write_lists(state, keeper, first_row + row_of(thread), part_of(work, run), run.end == work.tiles);
  }

  __device__ __forceinline__ void work_all() {
    if (kTurns && group == 1) give_turn(1);
    Run run;
    for (Runs runs(work); runs.next(work, run);) {
      const int first_row = first_row_of(run);
      const bool last_run = runs.unit == runs.end;
      if (first_row + group * kGroupRows < work.rows) work_run(run, last_run, first_row);
      else pass_run(run, last_run);
    }
  }
};

template <class T, int kBlocks, int kCount>
__global__ void __launch_bounds__(kThreads, 1)
    vocabulary_kernel(const __grid_constant__ CUtensorMap hidden, const __grid_constant__ CUtensorMap weight, const __grid_constant__ Work work) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  auto& memory = *reinterpret_cast<Memory<kCount>*>(shared);
  const int warp = threadIdx.x / kWarp;
  const std::uint32_t cluster = cluster_blocks();
  if (threadIdx.x == 0) {
    prefetch_map(hidden);
    prefetch_map(weight);
    for (int i = 0; i < memory.kStages; ++i) {
      init_barrier(shared_address(&memory.full[i]), 1);
      init_barrier(shared_address(&memory.empty[i]), static_cast<int>(cluster) * 2 * kGroupWarps);
    }
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(shared_address(&memory.bias_full[i]), 1);
      init_barrier(shared_address(&memory.bias_empty[i]), 2 * kGroupWarps);
    }
    publish_barriers();
  }
  let_next_start();
  __syncthreads();
  sync_cluster();
  if (threadIdx.x < kWarpgroup) {
    leave_registers<24>();
    if (threadIdx.x == 0) load_stages<kBlocks, kCount>(memory, hidden, weight, work);
    if (warp == 1) load_biases<kCount>(memory, work);
    __syncwarp();
  } else {
    take_registers<240>();
    const int thread = threadIdx.x - kWarpgroup;
    Consumer<T, kBlocks, kCount> consumer{memory, work, thread, thread / kWarpgroup, thread % kWarp, cluster};
    consumer.work_all();
  }
  sync_cluster();  // the other block may still send here, and arrive at barriers here
#else
  __trap();  // vocabulary_kernel_fits says no
#endif
}

// How `rows` are cut: clusters of two blocks share weights as soon as there are two blocks of rows.
struct Cuts {
  int cluster, blocks, clusters, list_parts;
  Work work;
};

Cuts cut(const VocabularyArgs& args, int multiprocessors) {
  Cuts cuts{};
  Work& work = cuts.work;
  work.bias = args.bias;
  work.rows = static_cast<int>(args.rows), work.vocabulary = static_cast<int>(args.vocabulary);
  work.tiles = (work.vocabulary + kTileIds - 1) / kTileIds;
  work.segments = (work.tiles + kSegmentTiles - 1) / kSegmentTiles;
  cuts.cluster = work.rows > kBlockRows ? 2 : 1;
  cuts.blocks = (work.rows + cuts.cluster * kBlockRows - 1) / (cuts.cluster * kBlockRows);
  work.units = cuts.blocks * work.segments;
  cuts.clusters = min(min(multiprocessors, kMostBlocks) / cuts.cluster, work.units);
  for (int i = 0; i < cuts.blocks; ++i) {
    const std::int64_t first = static_cast<std::int64_t>(i) * work.segments, last = first + work.segments - 1;
    work.list_parts = max(work.list_parts, cluster_of(last, work.units, cuts.clusters) - cluster_of(first, work.units, cuts.clusters) + 1);
  }
  return cuts;
}

int listed(int count) { return count == 1 ? 1 : count <= 8 ? 8 : 16; }

template <class T, int kBlocks, int kCount>
void launch(const VocabularyArgs& args, const Cuts& cuts, cudaStream_t stream) {
  const auto kernel = vocabulary_kernel<T, kBlocks, kCount>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Memory<kCount>));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(cuts.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(cuts.clusters * cuts.cluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(Memory<kCount>);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, args.hidden, args.weight, cuts.work);
}

template <class T, int kCount>
void launch_width(const VocabularyArgs& args, const Cuts& cuts, cudaStream_t stream) {
  if (args.width <= 4 * kDepth) launch<T, 4, kCount>(args, cuts, stream);
  else if (args.width <= 8 * kDepth) launch<T, 8, kCount>(args, cuts, stream);
  else launch<T, 16, kCount>(args, cuts, stream);
}

}  // namespace

bool vocabulary_kernel_fits(int capability, std::int64_t width, std::int64_t vocabulary, int count) {
  return capability == 90 && width > 0 && width % kDepth == 0 && width <= 16 * kDepth && count >= 1 && count <= 16 && vocabulary < (1 << 30);
}

std::size_t vocabulary_scratch_bytes(std::int64_t rows, std::int64_t vocabulary, int count) {
  // A row block's lists have at most two parts more than it has clusters.
  const std::int64_t ids = kSegmentTiles * kTileIds, segments = (vocabulary + ids - 1) / ids;
  const std::int64_t lists = (static_cast<std::int64_t>(kMostBlocks) * kBlockRows + 2 * rows) * listed(count);
  return static_cast<std::size_t>(lists) * sizeof(TokenValue) + static_cast<std::size_t>(rows * segments) * sizeof(float2);
}

template <class T>
void project_rows(const VocabularyArgs& args, const RulesView& rules, const RowCandidates& out, cudaStream_t stream) {
  if (args.rows == 0) return;
  int device = 0, multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  Cuts cuts = cut(args, multiprocessors);
  Work& work = cuts.work;
  work.never_chosen = rules.never_chosen, work.never_chosen_count = rules.never_chosen_count, work.renormalize = rules.renormalize;
  const int count = listed(out.count);
  work.lists = static_cast<TokenValue*>(args.scratch);
  work.sums = reinterpret_cast<float2*>(work.lists + args.rows * work.list_parts * count);
  if (count == 1) launch_width<T, 1>(args, cuts, stream);
  else if (count == 8) launch_width<T, 8>(args, cuts, stream);
  else launch_width<T, 16>(args, cuts, stream);
  merge_rows({work.sums, work.segments, work.lists, work.list_parts, count}, args.rows, out, stream);
}

template void project_rows<__half>(const VocabularyArgs&, const RulesView&, const RowCandidates&, cudaStream_t);
template void project_rows<__nv_bfloat16>(const VocabularyArgs&, const RulesView&, const RowCandidates&, cudaStream_t);

}  // namespace xlate::cuda
