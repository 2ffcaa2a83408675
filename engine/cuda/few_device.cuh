// What the operations on few rows share: 16-byte pieces, loads that see what other blocks wrote, and a tile of a product.
#pragma once

#include "engine/cuda/device.cuh"
#include "engine/cuda/few_rows.h"

namespace xlate::cuda {

constexpr int kAhead = 16;     // pieces that a thread fetches ahead, of what its next operation needs and no earlier one writes
constexpr int kTileRows = 8;   // rows of a weight in a tile
constexpr int kRoundTiles = 4; // tiles a block sums before it writes
constexpr int kRound = kRoundTiles * kTileRows;  // a thread has one output of them at most
constexpr int kPitchPad = 64;  // bytes between rows in shared memory, so that two rows fall into different banks
constexpr int kNormPieces = 4; // of a row, a lane

template <class T>
constexpr int kPiece = 16 / sizeof(T);

// The block's shared memory. `sums` has several uses, one in each operation. Loops are kept rolled: an operation is a few hundred
// instructions that are fetched anew each time, and what fetches ahead goes to shared memory and not to registers.
constexpr int kFewNormWidth = 1024;
constexpr int kKeptKeys = 256;
struct FewShared {
  FewOp ops[kFewOps];
  uint4 ahead[kAhead][kFewThreads];    // each thread's own
  uint4 rows[kFewRowBytes / 16];       // rows of T, `pitch` bytes apart
  float sums[kFewSums];
  uint4 gain[2 * kFewNormWidth / 4];   // float: gain and shift of the operation's norm
  float bias[kFewShare];               // of the block's part of the vocabulary
  // Of the step's rows: the slot, negative where there is nothing to do, tokens generated, the last of them, source tokens.
  int slot[kFewRows], length[kFewRows], token[kFewRows], source[kFewRows];
  int key_rows[2][kKeptKeys];          // the cache's rows of self- and of cross-attention's first keys, of the block's first (row, head)
};
constexpr std::size_t kFewSharedBytes = sizeof(FewShared);

// A copy into shared memory, past the first cache; zeros where there is nothing to copy. Whoever reads it waits first.
__device__ uint4 nothing;  // a place that a copy of no bytes may name
__device__ __forceinline__ void fetch(uint4* to, const void* from) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from ? from : &nothing), "r"(from ? 16 : 0) : "memory");
}
// The same of what is read once a step: the rest is to stay in L2 from step to step.
__device__ __forceinline__ void fetch_once(uint4* to, const void* from, unsigned long long policy) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(address), "l"(from ? from : &nothing), "r"(from ? 16 : 0), "l"(policy) : "memory");
}
__device__ __forceinline__ void bring(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
__device__ __forceinline__ unsigned long long once() {
  unsigned long long policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void wait_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory"); }
__device__ __forceinline__ void wait_fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ inline uint4 load_cached(const void* p) { return __ldcg(static_cast<const uint4*>(p)); }
template <class T>
__device__ inline float load_value(const T* p) {
  if constexpr (sizeof(T) == 4) return __ldcg(p);
  const unsigned short bits = __ldcg(reinterpret_cast<const unsigned short*>(p));
  return to_float(*reinterpret_cast<const T*>(&bits));
}
template <class T>
__device__ inline void unpack(const uint4& piece, float (&values)[kPiece<T>]) {
  const T* p = reinterpret_cast<const T*>(&piece);
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) values[i] = to_float(p[i]);
}
template <class T>
__device__ inline uint4 pack(const float (&values)[kPiece<T>]) {
  uint4 piece;
  T* p = reinterpret_cast<T*>(&piece);
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) p[i] = from_float<T>(values[i]);
  return piece;
}

// Products of a tile, 8 rows of a weight by 8 rows of x, by one warp. Lane 4·g + q holds 16-byte pieces: number q of four neighbouring ones
// of weight row g. Half types take the tensor cores, where any assignment of columns to places will do as long as both sides have the same.
template <class T>
struct Tile {
  using X = uint4;         // row g's piece q
  float sums[4] = {};      // [0], [1]: row g of x, weight rows 2q and 2q + 1
  template <class Rows>
  __device__ static X load(const Rows& rows, int piece, int count) {
    const int g = threadIdx.x % kWarp / 4;
    return g < count ? rows(g, piece) : uint4{};
  }
  __device__ void add(const X& x, const uint4& w) {
    multiply(x.x, x.y, w.x, w.y);
    multiply(x.z, x.w, w.z, w.w);
  }
  __device__ void multiply(unsigned x0, unsigned x1, unsigned w0, unsigned w1) {
    if constexpr (std::is_same_v<T, __half>) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %6, %5, %6}, {%7, %8}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(x0), "r"(x1), "r"(0u), "r"(w0), "r"(w1));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %6, %5, %6}, {%7, %8}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(x0), "r"(x1), "r"(0u), "r"(w0), "r"(w1));
    }
  }
  // store(row of x, row of the tile, sum) for each, by some lane; all at 0 again.
  template <class Store>
  __device__ void finish(int count, const Store& store) {
    const int g = threadIdx.x % kWarp / 4, q = threadIdx.x % 4;
    if (g < count) store(g, 2 * q, sums[0]), store(g, 2 * q + 1, sums[1]);
    sums[0] = sums[1] = 0;
  }
};

template <>
struct Tile<float> {
  struct X {
    uint4 rows[kFewRows];  // each row's piece q
  };
  float sums[kFewRows] = {};  // weight row g by each row of x, this lane's columns
  template <class Rows>
  __device__ static X load(const Rows& rows, int piece, int count) {
    X x;
#pragma unroll
    for (int r = 0; r < kFewRows; ++r) x.rows[r] = r < count ? rows(r, piece) : uint4{};
    return x;
  }
  __device__ void add(const X& x, const uint4& w) {
    const float* a = reinterpret_cast<const float*>(&w);
#pragma unroll
    for (int r = 0; r < kFewRows; ++r) {
      const float* b = reinterpret_cast<const float*>(&x.rows[r]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r] = fmaf(a[i], b[i], sums[r]);
    }
  }
  template <class Store>
  __device__ void finish(int count, const Store& store) {
    const int g = threadIdx.x % kWarp / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < kFewRows; ++r) {
      sums[r] += __shfl_xor_sync(kAllLanes, sums[r], 1);
      sums[r] += __shfl_xor_sync(kAllLanes, sums[r], 2);
      if (r < count && r % 4 == q) store(r, g, sums[r]);
      sums[r] = 0;
    }
  }
};

// Rows of a weight that a block computes.
struct Share {
  int first, count;
};
__device__ inline Share share_of(const FewOp& op) {
  const int block = blockIdx.x;
  return {block * op.each_share + min(block, op.longer_shares), op.each_share + (block < op.longer_shares ? 1 : 0)};
}

template <class T>
__device__ inline int pitch_of(int width) { return width * static_cast<int>(sizeof(T)) + kPitchPad; }

}  // namespace xlate::cuda
