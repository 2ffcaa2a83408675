// One step of attention for few rows: a block per (row, head). A key is read by as many lanes as it has 16-byte pieces, the warps share
// the keys, each lane keeps an online softmax of its own, and the parts are added up in one order. What is in the cache from earlier
// steps is read before the query is there.
#pragma once

#include "engine/cuda/few_device.cuh"

namespace xlate::cuda {

constexpr int kAheadKeys = kAhead / 2;  // keys, and their values, a thread
constexpr int kPackedKeys = 4;          // at once, a thread

// Where the cached keys of a (row, head) lie.
struct Keys {
  int slot, count;        // the slot is negative where there is nothing to do
  const int* kept;        // the cache's rows of the first keys; null: none were kept
  const std::uint8_t* ancestor;
};

__device__ inline int cache_row_of(const FewOp& op, int slot, int t, int line) {
  const int page = op.cache.table[slot * op.cache.pages_per_slot + (t >> op.page_log)];
  return ((page << op.page_log) + (t & ((1 << op.page_log) - 1))) * static_cast<int>(op.cache.lines) + line;
}
__device__ inline int key_row(const FewOp& op, const Keys& keys, int t, int beams) {
  if (keys.kept && t < kKeptKeys) return keys.kept[t];
  return cache_row_of(op, keys.slot, t, keys.ancestor ? keys.ancestor[static_cast<std::int64_t>(t) * beams] : 0);
}

__device__ __forceinline__ Keys keys_of(const FewOp& op, const FewProgram& program, const FewShared& shared, int row, bool kept) {
  const bool self = op.kind == FewKind::kSelf;
  const int slot = shared.slot[row], beams = static_cast<int>(program.rows.beams);
  return {slot, self ? shared.length[row] : shared.source[row], kept ? shared.key_rows[!self] : nullptr,
          self && slot >= 0 ? program.state.ancestor + slot * program.state.longest * beams + row % beams : nullptr};
}

// Looks up once, for all layers, where the keys of the block's first (row, head) lie: all have the same table.
__device__ inline void keep_keys(const FewOp& op, const FewProgram& program, FewShared& shared) {
  if (static_cast<int>(blockIdx.x) >= op.rows * op.heads) return;
  const Keys keys = keys_of(op, program, shared, blockIdx.x / op.heads, false);
  if (keys.slot < 0) return;
  for (int t = threadIdx.x; t < min(keys.count, kKeptKeys); t += kFewThreads) {
    shared.key_rows[op.kind == FewKind::kCross][t] = key_row(op, keys, t, static_cast<int>(program.rows.beams));
  }
}

// Keys are dealt out to the groups of lanes of all warps, pass after pass: visit(i, this lane's piece of a key or null) for the passes at
// hand.
template <class T, class Visit>
__device__ __forceinline__ void each_key(const FewOp& op, const Keys& keys, int head, int beams, int first_pass, int passes, const Visit& visit) {
  const int lane = threadIdx.x % kWarp, log = op.lanes_log, piece = lane & ((1 << log) - 1), width = op.in / op.heads;
  const bool inside = piece * kPiece<T> < width;
  const T* pages = static_cast<const T*>(op.cache.pages) + head * width + piece * kPiece<T>;
#pragma unroll 1
  for (int i = 0; i < min(kAheadKeys, passes - first_pass); ++i) {
    const int t = (((first_pass + i) * kFewWarps + threadIdx.x / kWarp) << (5 - log)) + (lane >> log);
    visit(i, inside && t < keys.count ? pages + static_cast<std::int64_t>(key_row(op, keys, t, beams)) * 2 * op.in : nullptr);
  }
}

template <class T>
__device__ __forceinline__ void fetch_keys(const FewOp& op, const Keys& keys, int head, int beams, int first_pass, int passes, FewShared& shared) {
  each_key<T>(op, keys, head, beams, first_pass, passes, [&](int i, const T* key) {
    fetch(&shared.ahead[2 * i][threadIdx.x], key);
    fetch(&shared.ahead[2 * i + 1][threadIdx.x], key ? key + op.in : nullptr);
  });
}

__device__ __forceinline__ int passes_of(const FewOp& op, int keys) {
  const int log = 5 - op.lanes_log + kFewWarpsLog;
  return (keys + (1 << log) - 1) >> log;
}

// What attention begins with, fetched, or only brought into L2.
template <class T>
__device__ __forceinline__ void look_ahead_at_keys(const FewOp& op, const FewProgram& program, FewShared& shared) {
  if (static_cast<int>(blockIdx.x) >= op.rows * op.heads) return;
  const int row = blockIdx.x / op.heads;
  const Keys keys = keys_of(op, program, shared, row, true);
  if (keys.slot < 0) return;
  fetch_keys<T>(op, keys, blockIdx.x - row * op.heads, static_cast<int>(program.rows.beams), 0, passes_of(op, keys.count), shared);
}
template <class T>
__device__ __forceinline__ void approach_keys(const FewOp& op, const FewProgram& program, const FewShared& shared) {
  if (static_cast<int>(blockIdx.x) >= op.rows * op.heads) return;
  const int row = blockIdx.x / op.heads;
  const Keys keys = keys_of(op, program, shared, row, true);
  if (keys.slot < 0) return;
  each_key<T>(op, keys, blockIdx.x - row * op.heads, static_cast<int>(program.rows.beams), 0, passes_of(op, keys.count), [&](int, const T* key) {
    if (key) bring(key), bring(key + op.in);
  });
}

// A lane's share of a head's softmax and weighted sum.
template <class T>
struct Softmax {
  float max = -INFINITY, sum = 0, values[kPiece<T>] = {};

  // All lanes call; `there` tells whether this lane's key exists. Lanes of a key hold its pieces.
  __device__ void add(const float (&query)[kPiece<T>], const uint4& key, const uint4& value, bool there, int lanes, float scale) {
    float k[kPiece<T>], v[kPiece<T>], score = 0;
    unpack<T>(key, k);
    unpack<T>(value, v);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) score = fmaf(query[i], k[i], score);
    for (int offset = lanes / 2; offset > 0; offset /= 2) score += __shfl_xor_sync(kAllLanes, score, offset);
    if (!there) return;
    score *= scale;
    const float largest = fmaxf(max, score), correction = __expf(max - largest), share = __expf(score - largest);
    sum = sum * correction + share;
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) values[i] = values[i] * correction + share * v[i];
    max = largest;
  }
  // Adds up over the groups of lanes; every group has the result.
  __device__ void merge(int lanes) {
    float largest = max;
    for (int offset = kWarp / 2; offset >= lanes; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
    const float correction = max > -INFINITY ? __expf(max - largest) : 0.0f;
    max = largest;
    sum *= correction;
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) values[i] *= correction;
    for (int offset = kWarp / 2; offset >= lanes; offset /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
#pragma unroll
      for (int i = 0; i < kPiece<T>; ++i) values[i] += __shfl_xor_sync(kAllLanes, values[i], offset);
    }
  }
};

// The new token's key and value: into the cache, for later steps, and into the last warp's share.
template <class T>
__device__ void add_own(const FewOp& op, const Keys& keys, int beam, int head, const T* query, const float (&query_piece)[kPiece<T>], float scale, Softmax<T>& part) {
  const int lane = threadIdx.x % kWarp, lanes = 1 << op.lanes_log, width = op.in / op.heads;
  const bool there = lane < lanes && lane * kPiece<T> < width;
  uint4 key{}, value{};
  if (there) {
    key = load_cached(query + op.in + lane * kPiece<T>);
    value = load_cached(query + 2 * op.in + lane * kPiece<T>);
    T* place = static_cast<T*>(op.cache.pages) + static_cast<std::int64_t>(cache_row_of(op, keys.slot, keys.count, beam)) * 2 * op.in + head * width + lane * kPiece<T>;
    *reinterpret_cast<uint4*>(place) = key;
    *reinterpret_cast<uint4*>(place + op.in) = value;
  }
  part.add(query_piece, key, value, there, lanes, scale);
}

// Adds the warps' parts: [warp][width] values, then [warp] maxima and [warp] sums.
template <class T>
__device__ __forceinline__ void merge_warps(const Softmax<T>& part, int width, float* shared, T* out) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float *maxima = shared + kFewWarps * width, *sums = maxima + kFewWarps;
  if (lane * kPiece<T> < width) {
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) shared[warp * width + lane * kPiece<T> + i] = part.values[i];
  }
  if (lane == 0) maxima[warp] = part.max, sums[warp] = part.sum;
  __syncthreads();
  const int column = threadIdx.x;  // a head is no wider than the block
  if (column >= width) return;
  float largest = -INFINITY, sum = 0, value = 0;
#pragma unroll
  for (int w = 0; w < kFewWarps; ++w) largest = fmaxf(largest, maxima[w]);
#pragma unroll 4
  for (int w = 0; w < kFewWarps; ++w) {
    const float correction = maxima[w] > -INFINITY ? __expf(maxima[w] - largest) : 0.0f;
    sum += sums[w] * correction;
    value += shared[w * width + column] * correction;
  }
  out[column] = from_float<T>(value / sum);
}

// Attention inside one sentence: a warp per (row, head). Its keys and values were written by the operation before.
template <class T>
__device__ void attention_packed(const FewOp& op) {
  const int width = op.in / op.heads, lanes = 1 << op.lanes_log, groups = kWarp >> op.lanes_log, lane = threadIdx.x % kWarp, piece = lane & (lanes - 1);
  const bool inside = piece * kPiece<T> < width;
  const float scale = rsqrtf(static_cast<float>(width));
  for (int item = threadIdx.x / kWarp * gridDim.x + blockIdx.x; item < op.rows * op.heads; item += kFewWarps * gridDim.x) {
    const int row = item / op.heads, head = item % op.heads;
    const T* x = static_cast<const T*>(op.x) + head * width + piece * kPiece<T>;
    float q[kPiece<T>];
    unpack<T>(inside ? load_cached(x + static_cast<std::int64_t>(row) * op.x_stride) : uint4{}, q);
    Softmax<T> part;
    for (int first = 0; first < op.rows; first += kPackedKeys * groups) {
      uint4 keys[kPackedKeys], values[kPackedKeys];
#pragma unroll
      for (int i = 0; i < kPackedKeys; ++i) {
        const int t = first + i * groups + (lane >> op.lanes_log);
        const T* key = x + static_cast<std::int64_t>(t) * op.x_stride + op.in;
        keys[i] = inside && t < op.rows ? load_cached(key) : uint4{};
        values[i] = inside && t < op.rows ? load_cached(key + op.in) : uint4{};
      }
#pragma unroll
      for (int i = 0; i < kPackedKeys; ++i) part.add(q, keys[i], values[i], first + i * groups + (lane >> op.lanes_log) < op.rows, lanes, scale);
    }
    part.merge(lanes);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) part.values[i] /= part.sum;
    T* out = static_cast<T*>(op.out_rows) + static_cast<std::int64_t>(row) * op.out_stride + head * width;
    if (lane < lanes && inside) *reinterpret_cast<uint4*>(out + piece * kPiece<T>) = pack<T>(part.values);
  }
}

template <class T>
__device__ __forceinline__ void attention(const FewOp& op, const FewProgram& program, FewShared& shared) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, lanes = 1 << op.lanes_log, width = op.in / op.heads, piece = lane & (lanes - 1);
  const int beams = static_cast<int>(program.rows.beams);
  const float scale = rsqrtf(static_cast<float>(width));
  for (int item = blockIdx.x; item < op.rows * op.heads; item += gridDim.x) {
    const bool first_item = item == static_cast<int>(blockIdx.x);
    const int row = item / op.heads, head = item - row * op.heads;
    const Keys keys = keys_of(op, program, shared, row, first_item);
    if (keys.slot < 0) continue;
    const int passes = passes_of(op, keys.count);
    const T* query = static_cast<const T*>(op.x) + row * op.x_stride + head * width;
    float q[kPiece<T>];
    unpack<T>(piece * kPiece<T> < width ? load_cached(query + piece * kPiece<T>) : uint4{}, q);
    Softmax<T> part;
    for (int first = 0; first < passes; first += kAheadKeys) {
      if (first > 0 || !first_item) fetch_keys<T>(op, keys, head, beams, first, passes, shared), wait_fetched();
#pragma unroll 1
      for (int i = 0; i < min(kAheadKeys, passes - first); ++i) {
        const int t = (((first + i) * kFewWarps + warp) << (5 - op.lanes_log)) + (lane >> op.lanes_log);
        part.add(q, shared.ahead[2 * i][threadIdx.x], shared.ahead[2 * i + 1][threadIdx.x], t < keys.count, lanes, scale);
      }
    }
    if (op.kind == FewKind::kSelf && warp == kFewWarps - 1) add_own<T>(op, keys, row % beams, head, query, q, scale, part);
    part.merge(lanes);
    merge_warps<T>(part, width, shared.sums, static_cast<T*>(op.out_rows) + row * op.out_stride + head * width);
    if (item + static_cast<int>(gridDim.x) < op.rows * op.heads) __syncthreads();
  }
}

}  // namespace xlate::cuda
