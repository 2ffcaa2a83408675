// The last product of a step and the choice of candidates: each block has a share of the vocabulary, a warp takes eight ids at a time over
// all columns; the block's logits stay in shared memory, and what leaves it are, for each row, the maximum, the sum of exponentials and the
// best `count`. Later a warp a row merges the blocks' parts.
#pragma once

#include "engine/cuda/few_product.cuh"

namespace xlate::cuda {

// Floats as integers of the same order; 0 stands for what cannot be chosen: −∞ and NaN.
__device__ inline unsigned order_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return !(x > -INFINITY) ? 0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The best of the lanes' entries, the smaller token among equals; every lane gets it. Its value is −∞ where there is none.
__device__ inline FewBest best_of_warp(const FewBest& mine) {
  const unsigned order = order_of(mine.value), largest = __reduce_max_sync(kAllLanes, order);
  if (largest == 0) return {-INFINITY, INT32_MAX};
  const unsigned token = __reduce_min_sync(kAllLanes, order == largest ? static_cast<unsigned>(mine.token) : UINT32_MAX);
  return {__uint_as_float(largest & 0x80000000u ? largest & 0x7fffffffu : ~largest), static_cast<std::int32_t>(token)};
}

// Value and token as one integer, larger for what comes first; 0 for what cannot be chosen.
__device__ inline unsigned long long key_of(const FewBest& x) {
  const unsigned order = order_of(x.value);
  return order == 0 ? 0 : static_cast<unsigned long long>(order) << 32 | ~static_cast<unsigned>(x.token);
}
__device__ inline unsigned long long max_of_warp(unsigned long long key) {
  const auto high = static_cast<unsigned>(key >> 32), largest = __reduce_max_sync(kAllLanes, high);
  return static_cast<unsigned long long>(largest) << 32 | __reduce_max_sync(kAllLanes, high == largest ? static_cast<unsigned>(key) : 0u);
}

__device__ inline bool comes_before(const FewBest& a, const FewBest& b) { return a.value != b.value ? a.value > b.value : a.token < b.token; }

// The pieces of a weight that a thread takes part in, slice after slice, tile after tile of its warp.
template <class T>
struct Cursor {
  const T* p;
  int row, slice = 0;
  __device__ Cursor(const FewOp& op, const Share& share)
      : p(static_cast<const T*>(op.weight) + static_cast<std::int64_t>(share.first + row_of_thread()) * op.weight_stride), row(row_of_thread()) {}
  __device__ static int row_of_thread() { return threadIdx.x / kWarp * kTileRows + threadIdx.x % kWarp / 4; }
  __device__ void fetch_next(const FewOp& op, const Share& share, uint4* to, unsigned long long policy) {
    const int piece = slice * 4 + threadIdx.x % 4;
    fetch_once(to, row < share.count && piece < op.in / kPiece<T> ? p + piece * kPiece<T> : nullptr, policy);
    if (++slice == op.slices) slice = 0, row += kFewWarps * kTileRows, p += kFewWarps * kTileRows * op.weight_stride;
  }
};
constexpr int kHalf = kAhead / 2;  // one half is used while the other one is fetched

// What the vocabulary product begins with. The cursor stands behind it.
template <class T>
__device__ __forceinline__ void look_ahead_at_vocabulary(const FewOp& op, FewShared& shared) {
  const Share share = share_of(op);
  Cursor<T> cursor(op, share);
  const unsigned long long policy = once();
#pragma unroll 1
  for (int j = 0; j < kAhead; ++j) cursor.fetch_next(op, share, &shared.ahead[j][threadIdx.x], policy);
  const float* bias = static_cast<const float*>(op.bias);
  for (int n = threadIdx.x; n < share.count; n += kFewThreads) shared.bias[n] = bias ? bias[share.first + n] : 0.0f;
}

// logits [rows, share.count].
template <class T>
__device__ __forceinline__ void block_logits(const FewOp& op, const Share& share, FewShared& shared, float* logits) {
  const int q = threadIdx.x % 4, warp = threadIdx.x / kWarp, tiles = (share.count + kTileRows - 1) / kTileRows, pitch = pitch_of<T>(op.in), last = op.in / kPiece<T> - 1;
  const auto staged = [&](int r, int piece) { return *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(shared.rows) + r * pitch + piece * 16); };
  const int total = warp < tiles ? (tiles - warp + kFewWarps - 1) / kFewWarps * op.slices : 0;
  const unsigned long long policy = once();
  Cursor<T> cursor(op, share);
  for (int j = 0; j < kAhead; ++j) {  // to where look_ahead_at_vocabulary left it
    if (++cursor.slice == op.slices) cursor.slice = 0, cursor.row += kFewWarps * kTileRows, cursor.p += kFewWarps * kTileRows * op.weight_stride;
  }
  Tile<T> sums;
  int slice = 0, tile = warp, half = 0;
#pragma unroll 1
  for (int first = 0; first < total; first += kHalf, half = kHalf - half) {
    wait_groups<1>();
#pragma unroll 4
    for (int j = 0; j < kHalf; ++j) {
      if (first + j >= total) break;
      sums.add(Tile<T>::load(staged, min(slice * 4 + q, last), op.rows), shared.ahead[half + j][threadIdx.x]);
      if (++slice < op.slices) continue;
      sums.finish(op.rows, [&](int r, int i, float sum) {
        const int n = tile * kTileRows + i;
        if (n < share.count) logits[r * share.count + n] = sum + shared.bias[n];
      });
      slice = 0, tile += kFewWarps;
    }
#pragma unroll 4
    for (int j = 0; j < kHalf; ++j) cursor.fetch_next(op, share, &shared.ahead[half + j][threadIdx.x], policy);
    end_group();
  }
  wait_fetched();
}

// Ids of this share that may not be chosen.
__device__ inline void strike_out(const RulesView& rules, const Share& share, float* logits) {
  for (int i = threadIdx.x % kWarp; i < rules.never_chosen_count; i += kWarp) {
    const int n = rules.never_chosen[i] - share.first;
    if (n >= 0 && n < share.count) logits[n] = -INFINITY;
  }
  __syncwarp();
}

// One row's part: a warp's passes over the block's logits of it, which it spoils.
__device__ inline void leave_part(const RulesView& rules, const Share& share, float* logits, int count, float2* sum, FewBest* list) {
  const int lane = threadIdx.x % kWarp;
  if (rules.renormalize) strike_out(rules, share, logits);
  float max = -INFINITY, total = 0;
#pragma unroll 8
  for (int n = lane; n < share.count; n += kWarp) max = fmaxf(max, logits[n]);
  max = warp_max(max);
#pragma unroll 8
  for (int n = lane; n < share.count; n += kWarp) {
    const float logit = logits[n];
    total += max == -INFINITY && logit == -INFINITY ? 0.0f : __expf(logit - max);
  }
  total = warp_sum(total);
  if (lane == 0) *sum = {max, total};
  __syncwarp();
  if (!rules.renormalize) strike_out(rules, share, logits);
  const auto best_of_lane = [&] {
    FewBest mine{-INFINITY, INT32_MAX};
#pragma unroll 8
    for (int n = lane; n < share.count; n += kWarp) {
      const float logit = logits[n];
      if (logit > mine.value) mine = {logit, share.first + n};
    }
    return mine;
  };
  FewBest mine = best_of_lane();
  for (int i = 0; i < count; ++i) {
    const FewBest best = best_of_warp(mine);
    if (lane == 0) list[i] = best;
    if (!(best.value > -INFINITY) || mine.token != best.token) continue;
    logits[best.token - share.first] = -INFINITY;
    mine = best_of_lane();
  }
}

template <class T>
__device__ __forceinline__ void vocabulary(const FewOp& op, const FewProgram& program, FewShared& shared) {
  const Share share = share_of(op);
  stage_rows<T>(op, shared, 0, op.rows);
  block_logits<T>(op, share, shared, shared.sums);
  __syncthreads();
  const int row = threadIdx.x / kWarp, part = row * gridDim.x + blockIdx.x, count = program.count_of_best;
  if (row < op.rows) {
    leave_part(program.rules, share, shared.sums + row * share.count, count, program.parts.sums + part, program.parts.lists + static_cast<std::int64_t>(part) * count);
  }
}

// The best of one row's parts as log-probabilities, by a warp, to best[0, count): fewer end with −∞. Room for count² + 2·count entries there.
__device__ inline void merge_parts(const FewProgram& program, int row, FewBest* best_of_row) {
  constexpr int kHeads = kFewBlocks / kWarp;
  const int lane = threadIdx.x % kWarp, parts = gridDim.x, count = program.count_of_best;
  FewBest* list = best_of_row + count;
  const float2* sums = program.parts.sums + static_cast<std::int64_t>(row) * parts;
  const FewBest* lists = program.parts.lists + static_cast<std::int64_t>(row) * parts * count;
  const auto read = [&](int part, int i) {
    const uint2 bits = __ldcg(reinterpret_cast<const uint2*>(lists + static_cast<std::int64_t>(part) * count + i));
    return FewBest{__uint_as_float(bits.x), static_cast<std::int32_t>(bits.y)};
  };
  unsigned long long heads[kHeads];
  float2 own[kHeads];
  float max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int part = lane + i * kWarp;
    heads[i] = part < parts ? key_of(read(part, 0)) : 0;
    own[i] = part < parts ? __ldcg(sums + part) : float2{-INFINITY, 0.0f};
  }
#pragma unroll
  for (int i = 0; i < kHeads; ++i) max = fmaxf(max, own[i].x);
  max = warp_max(max);
  float total = 0;
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    if (own[i].x > -INFINITY || own[i].y != 0.0f) total += own[i].y * __expf(own[i].x - max);
  }
  const float log_sum = max + logf(warp_sum(total));

  // The best are in the lists with the best heads; no entry after the count-th of these is among them.
  unsigned long long bound = 0;
  auto* chosen = reinterpret_cast<int*>(list + count * count);
  int lists_chosen = 0;
  for (; lists_chosen < count; ++lists_chosen) {
    unsigned long long mine = 0;
#pragma unroll
    for (int i = 0; i < kHeads; ++i) mine = heads[i] > mine ? heads[i] : mine;
    bound = max_of_warp(mine);
    if (bound == 0) break;
    if (mine != bound) continue;
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      if (heads[i] == bound) heads[i] = 0, chosen[lists_chosen] = lane + i * kWarp;
    }
  }
  __syncwarp();
  int found = 0;
#pragma unroll 2
  for (int first = 0; first < lists_chosen * count; first += kWarp) {
    const int e = first + lane;
    const FewBest entry = e < lists_chosen * count ? read(chosen[e / count], e % count) : FewBest{-INFINITY, INT32_MAX};
    const unsigned long long key = key_of(entry);
    const bool taken = key != 0 && key >= bound;
    const unsigned lanes = __ballot_sync(kAllLanes, taken);
    if (taken) list[found + __popc(lanes & ((1u << lane) - 1))] = entry;
    found += __popc(lanes);
  }
  __syncwarp();
  for (int i = lane; i < found; i += kWarp) {
    int place = 0;
    for (int j = 0; j < found; ++j) place += comes_before(list[j], list[i]);
    if (place < count) best_of_row[place] = {list[i].value - log_sum, list[i].token};
  }
  for (int i = found + lane; i < count; i += kWarp) best_of_row[i] = {-INFINITY, 0};
}

}  // namespace xlate::cuda
