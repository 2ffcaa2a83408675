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
constexpr int kDepth = 64;         // columns of a stage
constexpr int kPending = 20;       // of a thread: the 16 values of a part of a tile, and a few before them
constexpr std::uint32_t kStageBytes = 2 * kBoxBytes;
constexpr int kHeldBlocks = 8;     // of 64 columns of the rows, that registers have room for; the rest comes along with the weights
constexpr int kPendingBytes = 2 * kWarpgroup * 8;
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
  static constexpr int kStages = kCount == 1 ? 12 : 10;  // more than a tile has of 512 columns: one warpgroup may be a whole tile behind the other
  unsigned char stages[kStages][kStageBytes];
  float4 lists[2][kCount < 8 ? 1 : kCount / 8][2 * kWarpgroup];  // two entries each, of a thread's two rows: its quarter of a row's list
  float2 pending[kCount == 1 ? 1 : kPending][2 * kWarpgroup];    // a thread's values on their way to the lists, with their columns as bits
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

// The cluster that has this unit.
__host__ __device__ inline int cluster_of(std::int64_t unit, std::int64_t units, std::int64_t clusters) {
  return static_cast<int>(((unit + 1) * clusters - 1) / units);
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
  float bound[2];        // what is not above it is not among the row's best; with one candidate, the thread's best
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

// Where a thread's pending values lie: those of its row 0 from the front, those of row 1 from the back.
template <int kRow>
__device__ __forceinline__ int pending_place(int count) { return kRow == 0 ? count - 1 : kPending - count; }

// Brings a row's pending values into its list, which is sorted, a quarter in each lane of the quad: one of a quad's values at a time, all quads of
// the warp go along. `never` may be null. Returns the list's last value.
template <int kRow, int kCount>
__device__ __forceinline__ float drain(Memory<kCount>& memory, int pending, int first_id, const std::uint32_t* never, int thread) {
  constexpr int kOwn = kCount / 4;
  TokenValue own[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; i += 2) {
    const float4 two = memory.lists[kRow][i / 2][thread];
    own[i] = {two.x, __float_as_int(two.y)}, own[i + 1] = {two.z, __float_as_int(two.w)};
  }
  float2 head = memory.pending[pending_place<kRow>(max(pending, 1))][thread];
  float last = __shfl_sync(kAllLanes, own[kOwn - 1].value, 3, 4);
  while (const unsigned all = __ballot_sync(kAllLanes, pending > 0)) {
    const unsigned quad = all >> (thread & 28) & 15;
    const int source = __ffs(static_cast<int>(quad)) - 1;
    TokenValue entry{__shfl_sync(kAllLanes, head.x, source, 4), __shfl_sync(kAllLanes, __float_as_int(head.y), source, 4)};
    const TokenValue before{__shfl_up_sync(kAllLanes, own[kOwn - 1].value, 1, 4), __shfl_up_sync(kAllLanes, own[kOwn - 1].token, 1, 4)};
    if (pending > 0 && (thread % 4 == source || head.x < last)) {  // what others have overtaken goes too
      --pending;
      head = memory.pending[pending_place<kRow>(max(pending, 1))][thread];
    }
    entry.token += 2 * source;
    if (quad == 0 || (never && never[entry.token / 32] >> entry.token % 32 & 1)) entry.value = kNone;
    entry.token = entry.value == kNone ? INT32_MAX : entry.token + first_id;  // (−∞, INT32_MAX) changes nothing
    const bool from_before = thread % 4 != 0 && better(entry, before);
#pragma unroll
    for (int i = kOwn - 1; i >= 0; --i) {
      const bool shifts = i > 0 ? better(entry, own[i > 0 ? i - 1 : 0]) : from_before;
      if (better(entry, own[i])) own[i] = !shifts ? entry : i > 0 ? own[i > 0 ? i - 1 : 0] : before;
    }
    last = __shfl_sync(kAllLanes, own[kOwn - 1].value, 3, 4);
  }
#pragma unroll
  for (int i = 0; i < kOwn; i += 2) {
    memory.lists[kRow][i / 2][thread] = make_float4(own[i].value, __int_as_float(own[i].token), own[i + 1].value, __int_as_float(own[i + 1].token));
  }
  return last;
}

// Appends those of a row's 8 values in columns [32·kPart, 32·kPart + 32) that are above the bound, with their columns less the lane's.
template <int kRow, int kPart>
__device__ __forceinline__ void append(const float (&d)[64], float bound, std::uint32_t& to) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float value = d[16 * kPart + i / 2 * 4 + 2 * kRow + i % 2];
    asm volatile("{\n .reg .pred p;\n setp.gt.f32 p, %1, %2;\n @p st.shared.v2.f32 [%0], {%1, %3};\n @p add.s32 %0, %0, %4;\n}"
                 : "+r"(to)
                 : "f"(value), "f"(bound), "f"(__int_as_float(32 * kPart + i / 2 * 8 + i % 2)), "n"((kRow == 0 ? 1 : -1) * kPendingBytes)
                 : "memory");
  }
}

// Of both rows; false where there might be no room.
template <int kPart>
__device__ __forceinline__ bool append_part(const float (&d)[64], const RowState& state, std::uint32_t (&to)[2]) {
  const bool first = __any_sync(kAllLanes, RowState::highest_in<0, kPart>(d) > state.bound[0]);
  const bool second = __any_sync(kAllLanes, RowState::highest_in<1, kPart>(d) > state.bound[1]);
  if (!first && !second) return true;
  if (__any_sync(kAllLanes, static_cast<int>(to[1] - to[0]) < 15 * kPendingBytes)) return false;
  if (first) append<0, kPart>(d, state.bound[0], to[0]);
  if (second) append<1, kPart>(d, state.bound[1], to[1]);
  return true;
}

// Takes what is above the rows' bounds, 32 columns at a time. Later columns have later ids: they must be above what was taken before.
template <int kCount>
__device__ __forceinline__ void take_best(Memory<kCount>& memory, RowState& state, const float (&d)[64], int first_id, const std::uint32_t* never, int thread) {
  if (!__any_sync(kAllLanes, state.highest[0] > state.bound[0] || state.highest[1] > state.bound[1])) return;
  const std::uint32_t front = shared_address(&memory.pending[0][thread]), back = front + (kPending - 1) * kPendingBytes;
  for (int part = 0; part < 4;) {
    std::uint32_t to[2] = {front, back};
    if (part == 0) part += append_part<0>(d, state, to);
    if (part == 1) part += append_part<1>(d, state, to);
    if (part == 2) part += append_part<2>(d, state, to);
    if (part == 3) part += append_part<3>(d, state, to);
    const int pending[2] = {static_cast<int>(to[0] - front) / kPendingBytes, static_cast<int>(back - to[1]) / kPendingBytes};
    if (__any_sync(kAllLanes, pending[0] > 0)) state.bound[0] = fmaxf(state.bound[0], drain<0>(memory, pending[0], first_id, never, thread));
    if (__any_sync(kAllLanes, pending[1] > 0)) state.bound[1] = fmaxf(state.bound[1], drain<1>(memory, pending[1], first_id, never, thread));
  }
}

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

  __device__ __forceinline__ void take_apart(RowState& state, float (&d)[64], int tile, bool is_first) {
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
      take_best<kCount>(memory, state, d, tile * kTileIds, never ? words : nullptr, thread);
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

  __device__ __forceinline__ void start_lists(RowState& state) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state.top[h] = kNone, state.sum[h] = 0, state.bound[h] = kNone, state.token[h] = 0;
#pragma unroll
      for (int i = 0; i < kCount / 8; ++i) memory.lists[h][i][thread] = make_float4(kNone, 0, kNone, 0);
    }
  }
  // To part `part` of the rows' lists; the last of a row's parts is followed by empty ones.
  __device__ __forceinline__ void write_lists(RowState& state, int row, int part, bool last) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      TokenValue* out = work.lists + (static_cast<std::int64_t>(row + 8 * h) * work.list_parts + part) * kCount;
      const bool there = row + 8 * h < work.rows;
      if constexpr (kCount == 1) {
        TokenValue best{state.bound[h], state.token[h]};
        for (int offset = 1; offset < 4; offset *= 2) {
          const TokenValue other{__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.token, offset)};
          if (other.value > best.value || (other.value == best.value && other.token < best.token)) best = other;
        }
        if (there && lane % 4 == 0) {
          *out = best;
          for (int i = part + 1; last && i < work.list_parts; ++i) *++out = {kNone, 0};
        }
      } else if (there) {
        float4* own = reinterpret_cast<float4*>(out) + lane % 4 * (kCount / 8);
        for (int i = 0; i < kCount / 8; ++i) own[i] = memory.lists[h][i][thread];
        for (int i = part + 1; last && i < work.list_parts; ++i) {
          own += kCount / 2;
          for (int k = 0; k < kCount / 8; ++k) own[k] = make_float4(kNone, 0, kNone, 0);
        }
      }
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
    RowState state;
    const int row = first_row + thread / kWarp % 4 * 16 + lane / 4;
    hold_rows(rows);
    start_lists(state);
    for (int tile = run.tile; tile < run.end; ++tile) {
      give_next = !(last_run && group == 1 && tile + 1 == run.end);  // the other one has ended
      multiply_tile(d, rows);
      take_apart(state, d, tile, tile == run.tile);
      if (tile % kSegmentTiles == kSegmentTiles - 1 || tile + 1 == work.tiles) write_sums(state, row, tile / kSegmentTiles);
    }
    const std::int64_t clusters = gridDim.x / cluster;
    const int part = static_cast<int>(blockIdx.x / cluster) - cluster_of(static_cast<std::int64_t>(run.blocks) * work.segments, work.units, clusters);
    write_lists(state, row, part, run.end == work.tiles);
  }

  __device__ __forceinline__ void work_all() {
    if (kTurns && group == 1) give_turn(1);
    Run run;
    for (Runs runs(work); runs.next(work, run);) {
      const int first_row = (run.blocks * static_cast<int>(cluster) + static_cast<int>(rank_in_cluster())) * kBlockRows + group * kGroupRows;
      const bool last_run = runs.unit == runs.end;
      if (first_row < work.rows) work_run(run, last_run, first_row);
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
      init_barrier(shared_address(&memory.empty[i]), static_cast<int>(cluster) * 2 * kWarpgroup / kWarp);
    }
    for (int i = 0; i < kSlots; ++i) {
      init_barrier(shared_address(&memory.bias_full[i]), 1);
      init_barrier(shared_address(&memory.bias_empty[i]), 2 * kWarpgroup / kWarp);
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
