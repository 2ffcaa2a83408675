// Attention on tensor cores, for a warp: up to 16 query rows against a list of keys, 16 at a time, with an online softmax (Milakov and
// Gimelshein 2018; Dao et al. 2022) in float32. Queries, keys and values are 16-bit; a row's sums are formed in the order of its keys,
// so they depend on nothing but the row's own sentence.
//
// mma.m16n8k16: lane = 4·g + t. A product does not mind in which order its inner dimension goes, so each lane reads 16 bytes of a row
// and lets them stand for the columns that the fragment asks for: a row of 64 is read by 4 lanes in two contiguous halves, a value row
// by 8 lanes at once, and nothing passes through shared memory.
#pragma once

#include <cstdint>

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned pack(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const unsigned&>(pair);
}
__device__ inline unsigned pack(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const unsigned&>(pair);
}

__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The state of a warp's query rows. Rows g (low) and, where kHigh, g + 8 (high) are this lane's, as four lanes t hold one row.
template <class T, int kHead, bool kHigh>
class TileAttention {
 public:
  static constexpr int kKeys = 16;  // a tile

  /// Rows of queries, each of kHead elements aligned to 16 bytes; null: a row of zeros. `high` is ignored unless kHigh.
  __device__ void begin(const T* low, const T* high) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      query_[0][c] = low ? load(low + 32 * c + 8 * t) : uint4{};
      query_[1][c] = kHigh && high ? load(high + 32 * c + 8 * t) : uint4{};
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) acc_[j][0] = acc_[j][1] = acc_[j][2] = acc_[j][3] = 0.0f;
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  /// Adds a tile of keys. `key` are those of keys g and g + 8; `value` those of keys 2t, 2t + 1, 2t + 8 and 2t + 9, all readable. Bit i of
  /// `visible` tells whether the i-th of the latter takes part in this lane's rows.
  __device__ void add(const T* const (&key)[2], const T* const (&value)[4], unsigned visible_low, unsigned visible_high) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    uint4 k[2][kChunks];
    Piece v[4][kPieces];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) k[i][c] = load(key[i] + 32 * c + 8 * t);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kPieces; ++c) v[i][c] = *reinterpret_cast<const Piece*>(value[i] + 64 * c + kPieceColumns * g);
    }
    float score[2][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const unsigned first[4] = {query_[0][c].x, query_[1][c].x, query_[0][c].y, query_[1][c].y};
      const unsigned second[4] = {query_[0][c].z, query_[1][c].z, query_[0][c].w, query_[1][c].w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(score[i], first, k[i][c].x, k[i][c].y, T());
        multiply_add(score[i], second, k[i][c].z, k[i][c].w, T());
      }
    }
    unsigned share[4] = {};  // of the keys in the rows' sums, as the A operand of the second product
    weigh(0, score[0][0], score[0][1], score[1][0], score[1][1], visible_low, share[0], share[2]);
    if (kHigh) weigh(1, score[0][2], score[0][3], score[1][2], score[1][3], visible_high, share[1], share[3]);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int c = j / kPieceColumns, word = j % kPieceColumns / 2;
      const unsigned pick = j % 2 ? 0x7632 : 0x5410;
      const unsigned b0 = __byte_perm(word_of(v[0][c], word), word_of(v[1][c], word), pick);
      const unsigned b1 = __byte_perm(word_of(v[2][c], word), word_of(v[3][c], word), pick);
      multiply_add(acc_[j], share, b0, b1, T());
    }
  }

  /// Writes the rows; null: not that one.
  __device__ void end(T* low, T* high) {
    write(0, low);
    if (kHigh) write(1, high);
  }

 private:
  static constexpr int kChunks = kHead / 32;                          // 16-byte pieces of a query or key row that a lane reads
  static constexpr int kTiles = kHead / 8;                            // column tiles of the output
  static constexpr int kPieces = kHead < 64 ? 1 : kHead / 64;         // pieces of a value row that a lane reads …
  static constexpr int kPieceColumns = kHead < 64 ? kHead / 8 : 8;    // … of so many columns: column n of tile j is 64·c + kPieceColumns·n + j
  using Piece = std::conditional_t<kHead < 64, uint2, uint4>;

  __device__ static uint4 load(const T* p) { return *reinterpret_cast<const uint4*>(p); }
  __device__ static unsigned word_of(const uint4& x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }
  __device__ static unsigned word_of(const uint2& x, int i) { return i == 0 ? x.x : x.y; }

  // The online softmax of one row over the tile; four lanes hold its 16 scores.
  __device__ void weigh(int row, float s0, float s1, float s2, float s3, unsigned visible, unsigned& first, unsigned& second) {
    const float scale = 1.44269504f * rsqrtf(static_cast<float>(kHead));  // to base 2
    s0 = visible & 1 ? s0 * scale : -INFINITY;
    s1 = visible & 2 ? s1 * scale : -INFINITY;
    s2 = visible & 4 ? s2 * scale : -INFINITY;
    s3 = visible & 8 ? s3 * scale : -INFINITY;
    float largest = fmaxf(fmaxf(s0, s1), fmaxf(s2, s3));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(max_[row], fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2)));
    const float origin = largest == -INFINITY ? 0.0f : largest;  // a row may see no key of this tile, nor of those before
    const float correction = exp2_approximate(max_[row] - origin);
    s0 = exp2_approximate(s0 - origin), s1 = exp2_approximate(s1 - origin), s2 = exp2_approximate(s2 - origin), s3 = exp2_approximate(s3 - origin);
    max_[row] = largest;
    sum_[row] = sum_[row] * correction + ((s0 + s1) + (s2 + s3));  // this lane's part: the four are added at the end
#pragma unroll
    for (int j = 0; j < kTiles; ++j) acc_[j][2 * row] *= correction, acc_[j][2 * row + 1] *= correction;
    first = pack(s0, s1, T());
    second = pack(s2, s3, T());
  }

  __device__ void write(int row, T* out) {
    const int t = threadIdx.x % 4;
    float sum = sum_[row];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (!out) return;
    const float inverse = 1.0f / sum;
    const auto pair = [&](int a, int column) { return pack(acc_[a][2 * row + column] * inverse, acc_[a + 1][2 * row + column] * inverse, T()); };
#pragma unroll
    for (int c = 0; c < kPieces; ++c) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        T* place = out + 64 * c + kPieceColumns * (2 * t + n);
        const int j = c * kPieceColumns;
        if constexpr (kHead < 64) {
          *reinterpret_cast<uint2*>(place) = {pair(j, n), pair(j + 2, n)};
        } else {
          *reinterpret_cast<uint4*>(place) = {pair(j, n), pair(j + 2, n), pair(j + 4, n), pair(j + 6, n)};
        }
      }
    }
  }

  uint4 query_[2][kChunks];
  float max_[2], sum_[2], acc_[kTiles][4];
};

/// Where a list's key lies, in 16-byte units from a base, and which row may see it: a lane holds one of 32 entries.
struct TileEntry {
  static constexpr int kAll = -1, kNobody = -2;
  unsigned place = 0;
  int viewer = kNobody;  // a row, or kAll
};

/// Adds up to 32 keys, lane i holding the i-th: `count` of them are there.
template <class T, int kHead, bool kHigh>
__device__ void add_entries(TileAttention<T, kHead, kHigh>& tile, const T* base, std::int64_t value_offset, TileEntry entry, int count) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  for (int first = 0; first < count; first += TileAttention<T, kHead, kHigh>::kKeys) {
    const T *key[2], *value[4];
    unsigned visible_low = 0, visible_high = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) key[i] = base + static_cast<std::int64_t>(__shfl_sync(kAllLanes, entry.place, first + g + 8 * i)) * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int from = first + 2 * t + i % 2 + i / 2 * 8;
      value[i] = base + static_cast<std::int64_t>(__shfl_sync(kAllLanes, entry.place, from)) * 8 + value_offset;
      const int viewer = __shfl_sync(kAllLanes, entry.viewer, from);
      visible_low |= (viewer == TileEntry::kAll || viewer == g) << i;
      visible_high |= (viewer == TileEntry::kAll || viewer == g + 8) << i;
    }
    tile.add(key, value, visible_low, visible_high);
  }
}

/// Whether the kernels on tensor cores serve these arguments: 16-bit elements, rows aligned to 16 bytes.
template <class T>
bool tile_attention_fits(const AttendArgs<T>& args) {
  if constexpr (sizeof(T) != 2) return false;
  const std::int64_t head = args.width / args.heads;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return (head == 32 || head == 64 || head == 128) && args.width % 8 == 0 && args.query_stride % 8 == 0 && args.out_stride % 8 == 0 && aligned(args.query) && aligned(args.out);
}

/// Calls launch with the head's width as a constant.
template <class Launch>
void with_head(std::int64_t head, const Launch& launch) {
  if (head == 32) launch(std::integral_constant<int, 32>());
  else if (head == 64) launch(std::integral_constant<int, 64>());
  else launch(std::integral_constant<int, 128>());
}

}  // namespace xlate::cuda
