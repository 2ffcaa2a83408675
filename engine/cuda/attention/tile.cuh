// What the kernels of attention on tensor cores share. A warp computes a few query rows over a list
// of keys, 16 at a time, with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022) in
// float32. Queries, keys and values have 16 bits. The sums of a row are formed in the order of its
// keys, so they depend only on the row's own sentence.
//
// The products are mma.m16n8k16, and lanes are numbered 4·g + t as in its fragments. The order of
// the inner dimension of a product is free. Therefore each lane loads vectors of 16 bytes of a row
// and uses them as the columns that its fragment requires. A key of 64 columns is read by 4 lanes
// in two contiguous halves, a value of 64 columns by 8 lanes at once, and no fragment passes
// through shared memory to be rearranged. In packed.cu 16 queries are the rows of both products. In
// beam_tile.cuh up to 8 beams are their columns.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/head_bias.cuh"
#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// Adds the product of a [16, 16] and b [16, 8] to d [16, 8]. The last parameter chooses the type.
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                    __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                    __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
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

// Returns the transpose of a matrix of 8 × 8 elements, of which lane 4·g + t holds columns 2t and
// 2t + 1 of row g.
__device__ inline unsigned transposed(unsigned pair) {
  unsigned result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint4 load_vector(const void* p) { return *static_cast<const uint4*>(p); }
__device__ inline unsigned word_of(const uint4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
__device__ inline unsigned word_of(const uint2& x, int i) { return i == 0 ? x.x : x.y; }

/// How a lane loads rows of kHead elements.
template <int kHead>
struct HeadVectors {
  // kChunks is the number of vectors that a lane loads of a query or of a key.
  static constexpr int kChunks = kHead / 32;
  // A lane loads kValues times kColumns columns of a value. The c-th time, the lanes 4·g … 4·g + 3
  // load the columns from 64·c + kColumns·g on.
  static constexpr int kValues = kHead < 64 ? 1 : kHead / 64;
  static constexpr int kColumns = kHead < 64 ? kHead / 8 : 8;
  using Value = std::conditional_t < kHead<64, uint2, uint4>;
};

/// The softmax uses powers of two, so scores and biases are multiplied by log₂ e.
inline constexpr float kLog2OfE = 1.44269504f;

/// Returns whether scores are usual ones: products times 1/√head, without a bias. The kernels have
/// instances for these, which have the factor built in, and others for all scales and biases.
template <class T>
bool usual_scores(const AttendArgs<T>& args) {
  return !args.distance_bias && usual_scale(args.scale, args.width / args.heads);
}
/// Returns the usual score of a product.
template <int kHead>
__device__ float usual_score(float product) {
  return product * (kLog2OfE * rsqrtf(static_cast<float>(kHead)));
}

/// Calls launch with whether scores are usual ones, as a constant.
template <class T, class Launch>
void with_scores(const AttendArgs<T>& args, const Launch& launch) {
  if (usual_scores(args))
    launch(std::true_type());
  else
    launch(std::false_type());
}

/// Returns whether the kernels on tensor cores serve these arguments. They need plain attention,
/// elements of 16 bits, heads of 32, 64 or 128 columns, and rows aligned to 16 bytes. Caches are
/// always allocated with this alignment.
template <class T>
bool tile_attention_fits(const AttendArgs<T>& args) {
  if constexpr (sizeof(T) != 2) return false;
  const std::int64_t head = args.width / args.heads;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return plain(args) && (head == 32 || head == 64 || head == 128) && args.width % 8 == 0 &&
         args.query_stride % 8 == 0 && args.out_stride % 8 == 0 && aligned(args.query) &&
         aligned(args.out);
}

/// Calls launch with the width of a head, which must be 32, 64 or 128, as a constant.
template <class Launch>
void with_head(std::int64_t head, const Launch& launch) {
  if (head == 32)
    launch(std::integral_constant<int, 32>());
  else if (head == 64)
    launch(std::integral_constant<int, 64>());
  else
    launch(std::integral_constant<int, 128>());
}

}  // namespace xlate::cuda
