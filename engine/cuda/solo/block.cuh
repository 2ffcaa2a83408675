// What the parts of the kernel for a lone sentence share: the ring through which weights come, and
// the exchange of rows between the blocks of a cluster. Each block has a copy of all rows; what it
// computes it sends to all, and an exchange is over when all bytes have come.
#pragma once

#include "engine/cuda/attention/tile.cuh"
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/solo/solo.h"

namespace xlate::cuda {

constexpr int kSoloThreads = kSoloWarps * kWarp;  // that compute
constexpr std::uint32_t kSoloBoxRowBytes = 128;   // bytes of a row in a box

/// What the search comes to, for all blocks of the first cluster. Three pieces of 16 bytes.
struct alignas(16) SoloStepResult {
  int length, done, tokens[kSoloRows];
  int unused[2];
};

struct SoloBlock {
  std::uint64_t full[kSoloMostStages], empty[kSoloMostStages], exchange[2];
  SoloStepResult step_result;
  int list_count, new_key_row;
  unsigned used;  // stages that were read, when `stop` says that no more are
  volatile int stop;
};

__device__ inline void sync_workers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kSoloThreads) : "memory");
}

// The threads that compute.
struct SoloTeam {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return kSoloThreads; }
  __device__ void sync() const { sync_workers(); }
};

__device__ inline bool passed(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n .reg .pred done;\n mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      " selp.u32 %0, 1, 0, done;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done;
}
__device__ inline void arrive_many(std::uint32_t barrier, int count) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count)
               : "memory");
}
// How far a block's shared memory is from this block's, of which `here` is an address.
__device__ inline std::uint32_t peer_offset(std::uint32_t block, std::uint32_t here) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(block));
  return there - here;
}
// 16 bytes to where `to` is in another block, announced to its `barrier`.
__device__ inline void send_vector(std::uint32_t to, const uint4& vector, std::uint32_t barrier,
                                   std::uint32_t way) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
      "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to + way),
      "r"(vector.x), "r"(vector.y), "r"(vector.z), "r"(vector.w), "r"(barrier + way)
      : "memory");
}
__device__ inline void load_bytes_hinted(std::uint32_t to, const void* from, std::uint32_t bytes,
                                         std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
// Of what is read once a step, so that the rest stays in L2 from step to step.
__device__ inline std::uint64_t read_once() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// 16 bytes from memory to shared memory, while the thread goes on.
__device__ inline void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ inline void wait_fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A place in the ring, and the parity of its round.
struct SoloPipelineState {
  int stages, index = 0;
  std::uint32_t parity = 0, used = 0;
  __device__ explicit SoloPipelineState(int stages) : stages(stages) {}
  __device__ void advance() {
    ++used;
    if (++index == stages) index = 0, parity ^= 1;
  }
  __device__ void skip(int count) {
    used += count, index += count;
    for (; index >= stages; index -= stages) parity ^= 1;
  }
};

// Waits until the ring's place is free; false where no more is wanted.
__device__ inline bool wait_for_room(const SoloBlock& block, const SoloPipelineState& ring) {
  const std::uint32_t empty = shared_address(&block.empty[ring.index]);
  while (!passed(empty, ring.parity ^ 1)) {
    if (block.stop) return false;
  }
  return !block.stop;
}

// What was asked for and not read must have come before the block ends.
__device__ inline void drain(const SoloBlock& block, const SoloPipelineState& asked) {
  SoloPipelineState left(asked.stages);
  for (left.skip(static_cast<int>(block.used % (2 * asked.stages))), left.used = block.used;
       left.used != asked.used; left.advance()) {
    wait(shared_address(&block.full[left.index]), left.parity);
  }
}

// The exchange at hand. All blocks begin it; a block that begins is done with the one before. It
// orders nothing but the rows that are sent: an acquire for the whole cluster would empty the first
// cache, of the kernel's arguments too, which costs some microseconds an operation.
struct Exchange {
  static constexpr int kWays = kSoloCluster / 4;
  std::uint32_t barriers;  // two, in turns: no block is more than one exchange ahead of another
  std::uint32_t count = 0;
  std::uint32_t ways[kWays];  // to blocks q, q + 4, …
  std::uint32_t way;          // to block lane mod 16
  __device__ explicit Exchange(SoloBlock& block) : barriers(shared_address(block.exchange)) {
#pragma unroll
    for (int i = 0; i < kWays; ++i) ways[i] = peer_offset(threadIdx.x % 4 + 4 * i, barriers);
    way = peer_offset(threadIdx.x % kSoloCluster, barriers);
  }
  __device__ std::uint32_t barrier() const { return barriers + 8 * (count & 1); }
  // By one warp: so many bytes are to come here.
  __device__ void begin(std::uint32_t bytes) const {
    const std::uint32_t lane = threadIdx.x % kWarp;
    if (lane == rank_in_cluster())
      arrive_expecting(barrier(), bytes);
    else if (lane < kSoloCluster)
      asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier() + way)
                   : "memory");
  }
  // Of a quad's rows: a lane to a quarter of the blocks.
  __device__ void send(std::uint32_t to, const uint4& vector) const {
#pragma unroll
    for (int i = 0; i < kWays; ++i) send_vector(to, vector, barrier(), ways[i]);
  }
  // To one block, by a lane of each quad.
  __device__ void send_to(std::uint32_t block, std::uint32_t to, const uint4& vector) const {
    if (threadIdx.x % 4 == 0) send_vector(to, vector, barrier(), peer_offset(block, barriers));
  }
  // To this lane's block.
  __device__ void send_one(std::uint32_t to, const uint4& vector) const {
    send_vector(to, vector, barrier(), way);
  }
  // By all that compute; what they fetched has come too.
  __device__ void end() {
    wait(barrier(), count >> 1 & 1);
    ++count;
    wait_fetched();
    sync_workers();
  }
};

// A warp's view of a product of 16 rows of a weight with 8 rows of x: chains of mma.m16n8k16 over
// ascending columns, as cuBLASLt's kernels and WGMMA sum, to the bit (tests/solo_step_test.cpp).
// Lane 4·g + q ends with outputs g and g + 8 of rows 2q and 2q + 1.
struct SoloTile {
  std::uint32_t x, weight;  // this lane's: row of x, row of a box
  __device__ SoloTile(std::uint32_t rows, int pitch, int count, int tile) {
    const int lane = threadIdx.x % kWarp, row = lane % 16;
    x = rows + min(lane % 8, count - 1) * pitch + lane / 8 * 16;
    weight = (tile * kSoloTileOutputs + row) * kSoloBoxRowBytes + (lane / 16 ^ row % 8) * 16;
  }
};
struct SoloFragments {
  std::uint32_t x[2][4], weight[4][4];
  __device__ __forceinline__ void load(std::uint32_t x_at, std::uint32_t weight_at) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      load_matrices(weight[k], weight_at ^ 32 * k);
      if (k % 2 == 0) load_matrices(x[k / 2], x_at + 32 * k);
    }
  }
  template <class T>
  __device__ __forceinline__ void multiply(float (&sums)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      multiply_add(sums, weight[k], x[k / 2][k % 2 * 2], x[k / 2][k % 2 * 2 + 1], T());
  }
};

// The sums of a tile as a product's stages come, of kBoxes boxes each; `workers` warps read them.
// What is not known when this is compiled costs more here than the products: one warp issues an
// instruction in three clocks or so. Where a stage is one box, the next one is read while one is
// multiplied.
template <class T, int kBoxes>
__device__ __forceinline__ void sum_stages(const SoloBlock& block, std::uint32_t stages,
                                           SoloPipelineState& ring, const SoloTile& tile, int count,
                                           std::uint32_t box_bytes, int workers, float (&sums)[4]) {
  const int arrivals = threadIdx.x < kWarp ? kSoloWarps - workers + 1 : 1;
  const std::uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
  std::uint32_t x = tile.x;
  const auto await = [&] {
    wait(full + 8 * ring.index, ring.parity);
    return stages + ring.index * kSoloStageBytes + tile.weight;
  };
  const auto release = [&](int index) {
    if (threadIdx.x % kWarp == 0) arrive_many(empty + 8 * index, arrivals);
  };
  if constexpr (kBoxes == 1) {
    SoloFragments even, odd;
    const auto load = [&](SoloFragments& fragments) {
      fragments.load(x, await());
      x += kSoloBoxRowBytes;
      const int index = ring.index;
      ring.advance();
      return index;
    };
    int even_place = load(even), odd_place = 0;
#pragma unroll 1
    for (int left = count; left > 0; left -= 2) {
      if (left > 1) odd_place = load(odd);
      even.multiply<T>(sums);
      release(even_place);
      if (left > 2) even_place = load(even);
      if (left > 1) {
        odd.multiply<T>(sums);
        release(odd_place);
      }
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      const std::uint32_t weight = await();
      SoloFragments boxes[kBoxes];
#pragma unroll
      for (int box = 0; box < kBoxes; ++box)
        boxes[box].load(x + box * kSoloBoxRowBytes, weight + box * box_bytes);
#pragma unroll
      for (int box = 0; box < kBoxes; ++box) boxes[box].template multiply<T>(sums);
      release(ring.index);
      ring.advance();
      x += kBoxes * kSoloBoxRowBytes;
    }
  }
}

// As row_of_outputs, of floats: their halves are transposed apart.
__device__ __forceinline__ void row_of_sums(float even, float odd, uint4 (&vectors)[2]) {
  const std::uint32_t a = __float_as_uint(even), b = __float_as_uint(odd),
                      low = transposed(__byte_perm(a, b, 0x5410)),
                      high = transposed(__byte_perm(a, b, 0x7632));
  const std::uint32_t first = __byte_perm(low, high, 0x5410),
                      second = __byte_perm(low, high, 0x7632);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    vectors[i].x = __shfl_sync(kAllLanes, first, 2 * i, 4),
    vectors[i].y = __shfl_sync(kAllLanes, second, 2 * i, 4);
    vectors[i].z = __shfl_sync(kAllLanes, first, 2 * i + 1, 4),
    vectors[i].w = __shfl_sync(kAllLanes, second, 2 * i + 1, 4);
  }
}
// Two neighbouring rows' outputs g as pairs of T become the row g's 8 outputs, in each lane of its
// quad.
__device__ __forceinline__ uint4 row_of_outputs(std::uint32_t pair) {
  const std::uint32_t word = transposed(pair);
  uint4 vector;
  vector.x = __shfl_sync(kAllLanes, word, 0, 4), vector.y = __shfl_sync(kAllLanes, word, 1, 4);
  vector.z = __shfl_sync(kAllLanes, word, 2, 4), vector.w = __shfl_sync(kAllLanes, word, 3, 4);
  return vector;
}

}  // namespace xlate::cuda
