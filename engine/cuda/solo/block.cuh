// This file has what the parts of the solo kernel share: the ring of stages through which weights
// pass, the exchange of rows between the blocks of a cluster, and products on tensor cores. Each
// block that computes layers has a copy of all rows that it reads. What it computes is sent to the
// blocks that read it. An exchange is over for a block when all blocks of its cluster have begun it
// and the block has received all bytes.
#pragma once

#include "engine/cuda/attention/tile.cuh"
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/solo/solo.h"

namespace xlate::cuda {

// This many threads of a block compute.
constexpr int kSoloThreads = kSoloWarps * kWarp;
// A row of a box has this many bytes, and a box of a tile has this many.
constexpr std::uint32_t kSoloBoxRowBytes = 128;
constexpr std::uint32_t kSoloBoxBytes = kSoloTileOutputs * kSoloBoxRowBytes;

/// This is the outcome of a step of search. It goes to all blocks that compute layers, within a
/// cluster as three vectors of 16 bytes.
struct alignas(16) SoloStepResult {
  int length, done, tokens[kSoloRows];
  int unused[2];
};

/// This is the static shared memory of a block.
struct SoloBlock {
  // These are the mbarriers of the stages and of the exchanges.
  std::uint64_t full[kSoloMostStages], empty[kSoloMostStages], exchange[2];
  SoloStepResult step_result;
  // `list_count` is the length of self-attention's key list without the new keys, and `new_key_row`
  // is the cache row of the first new key.
  int list_count, new_key_row;
  // These are the means of rows and the factors that normalize them (moments in norms/norm.cuh).
  float2 moments[kSoloRows];
  // These are the rows' logarithms of the sums of exponentials of all logits.
  float log_sums[kSoloRows];
  // This many stages were read. The number is valid once `stop` is 1.
  unsigned used;
  // This is 1 when no more stages will be read.
  volatile int stop;
};

// Waits for all threads that compute.
__device__ inline void sync_workers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kSoloThreads) : "memory");
}

// These are the threads that compute, as advance_slot (search/advance.cuh) sees them.
struct SoloTeam {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return kSoloThreads; }
  __device__ void sync() const { sync_workers(); }
};

// Returns whether the phase of this parity has ended. It may wait for a short time.
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
// Returns whether it has ended by now.
__device__ inline bool passed_now(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n .reg .pred done;\n mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
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
// Returns the distance from this block's shared memory to that of another block of the cluster.
// `here` is any address in this block's shared memory.
__device__ inline std::uint32_t peer_offset(std::uint32_t block, std::uint32_t here) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(block));
  return there - here;
}
// Sends 16 bytes to another block, `way` bytes away (peer_offset), and counts them at its mbarrier.
// `to` and `barrier` are addresses in this block.
__device__ inline void send_vector(std::uint32_t to, const uint4& vector, std::uint32_t barrier,
                                   std::uint32_t way) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
      "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to + way),
      "r"(vector.x), "r"(vector.y), "r"(vector.z), "r"(vector.w), "r"(barrier + way)
      : "memory");
}
// Does the same as load_bytes (hopper.cuh), with a cache policy for L2.
__device__ inline void load_bytes_hinted(std::uint32_t to, const void* from, std::uint32_t bytes,
                                         std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
// Returns the cache policy for what is read once a step: L2 evicts it first, so that the rest may
// stay there from step to step.
__device__ inline std::uint64_t read_once() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Starts an asynchronous copy of 16 bytes from global memory to shared memory.
__device__ inline void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
// Waits for the calling thread's asynchronous copies.
__device__ inline void wait_fetched() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// This is a position in a ring of stages. `parity` is that of the turn through the ring, and `used`
// counts the stages passed.
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

// Waits until the next stage is free. Returns false if no more stages will be read.
__device__ inline bool wait_for_room(const SoloBlock& block, const SoloPipelineState& ring) {
  const std::uint32_t empty = shared_address(&block.empty[ring.index]);
  while (!passed(empty, ring.parity ^ 1)) {
    if (block.stop) return false;
  }
  return !block.stop;
}

// Waits for the copies into stages that nobody will read. They must have ended before the block
// does. `asked` is the loader's position.
__device__ inline void drain(const SoloBlock& block, const SoloPipelineState& asked) {
  SoloPipelineState left(asked.stages);
  for (left.skip(static_cast<int>(block.used % (2 * asked.stages))), left.used = block.used;
       left.used != asked.used; left.advance()) {
    wait(shared_address(&block.full[left.index]), left.parity);
  }
}

// These are the exchanges of a block, one after the other. Every block of the cluster must begin
// every exchange, and by doing so says that it is done with the one before. An exchange orders only
// the rows that are sent. An acquire for the whole cluster would empty the L1 cache, and with it
// the kernel's arguments, which costs some microseconds an operation.
template <int kBlocks>
struct Exchange {
  static constexpr int kWays = kBlocks / 4;
  // Two mbarriers begin at this address, which exchanges use in turns. Two suffice because no block
  // is more than one exchange ahead of another.
  std::uint32_t barriers;
  // This many exchanges have ended.
  std::uint32_t count = 0;
  // These are the distances (peer_offset) to the blocks q, q + 4 and so on, where q is the lane
  // modulo 4.
  std::uint32_t ways[kWays];
  // This is the distance to the block whose number is the lane modulo kBlocks.
  std::uint32_t way;
  __device__ explicit Exchange(SoloBlock& block) : barriers(shared_address(block.exchange)) {
#pragma unroll
    for (int i = 0; i < kWays; ++i) ways[i] = peer_offset(threadIdx.x % 4 + 4 * i, barriers);
    way = peer_offset(threadIdx.x % kBlocks, barriers);
  }
  __device__ std::uint32_t barrier() const { return barriers + 8 * (count & 1); }
  // Begins the next exchange; one warp calls it. Each of its first lanes arrives at the mbarrier of
  // one block of the cluster. The arrival at the block's own mbarrier also announces how many
  // bytes the block will receive.
  __device__ void begin(std::uint32_t bytes) const {
    const std::uint32_t lane = threadIdx.x % kWarp;
    if (lane == rank_in_cluster())
      arrive_expecting(barrier(), bytes);
    else if (lane < kBlocks)
      asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier() + way)
                   : "memory");
  }
  // Sends a vector to all blocks. The four lanes of a quad call it with the same arguments, and
  // each of them sends to kWays blocks.
  __device__ void send(std::uint32_t to, const uint4& vector) const {
#pragma unroll
    for (int i = 0; i < kWays; ++i) send_vector(to, vector, barrier(), ways[i]);
  }
  // Sends a vector to one block. The four lanes of a quad call it with the same arguments, and the
  // first of them sends.
  __device__ void send_to(std::uint32_t block, std::uint32_t to, const uint4& vector) const {
    if (threadIdx.x % 4 == 0) send_vector(to, vector, barrier(), peer_offset(block, barriers));
  }
  // Sends a vector to the block whose number is the lane modulo kBlocks.
  __device__ void send_one(std::uint32_t to, const uint4& vector) const {
    send_vector(to, vector, barrier(), way);
  }
  // Waits until the block has received all bytes, and until its own asynchronous copies have ended.
  // All threads that compute call it.
  __device__ void end() {
    wait(barrier(), count >> 1 & 1);
    ++count;
    wait_fetched();
    sync_workers();
  }
};

// Returns the row of a gated weight of 2·width rows that is at a place of the packed weight.
__device__ __forceinline__ std::int64_t gated_row(std::int64_t place, int width) {
  constexpr int kHalf = kSoloTileOutputs / 2;
  return place / kSoloTileOutputs * kHalf + place % kHalf +
         (place % kSoloTileOutputs < kHalf ? 0 : width);
}

// This has the operands of a warp's product of 16 rows of a weight and 8 rows of x. The product is
// a chain of mma.m16n8k16 over ascending columns, which gives the bits of cuBLASLt's kernels and of
// WGMMA (tests/solo_step_test.cpp). Lane 4·g + q ends with the outputs g and g + 8 of the rows 2q
// and 2q + 1 of x.
struct SoloTile {
  // The lane passes these to ldmatrix: the address of its row of x, and the offset of its row in
  // the tile's first box of a stage.
  std::uint32_t x, weight;
  __device__ SoloTile(std::uint32_t rows, int pitch, int count, int tile, int stage_boxes) {
    const int lane = threadIdx.x % kWarp, row = lane % 16;
    x = rows + min(lane % 8, count - 1) * pitch + lane / 8 * 16;
    weight =
        tile * stage_boxes * kSoloBoxBytes + row * kSoloBoxRowBytes + (lane / 16 ^ row % 8) * 16;
  }
};
// This has the operands of a box of 64 columns in registers.
struct SoloFragments {
  std::uint32_t x[2][4], weight[4][4];
  // Loads the operands of 16 of the columns, with every other call those of x for 32.
  __device__ __forceinline__ void load(int k, std::uint32_t x_at, std::uint32_t weight_at) {
    if (k % 2 == 0) load_matrices(x[k / 2], x_at + 32 * k);
    load_matrices(weight[k], weight_at ^ 32 * k);
  }
  __device__ __forceinline__ void load(std::uint32_t x_at, std::uint32_t weight_at) {
#pragma unroll
    for (int k = 0; k < 4; ++k) load(k, x_at, weight_at);
  }
  template <class T>
  __device__ __forceinline__ void multiply(int k, float (&sums)[4]) const {
    multiply_add(sums, weight[k], x[k / 2][k % 2 * 2], x[k / 2][k % 2 * 2 + 1], T());
  }
  template <class T>
  __device__ __forceinline__ void multiply(float (&sums)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) multiply<T>(k, sums);
  }
};

// Multiplies a box while the one behind it is read. A product of the chain waits for the one before
// it, and in that time the warp issues what stands between them. Whatever else a stage needs is
// therefore placed there: begin() behind the first product, and end() before the last one.
template <class T, class Begin, class End>
__device__ __forceinline__ void multiply_and_load(const SoloFragments& box, SoloFragments& next,
                                                  std::uint32_t x, std::uint32_t weight,
                                                  float (&sums)[4], const Begin& begin,
                                                  const End& end) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (k == 3) end();
    box.template multiply<T>(k, sums);
    next.load(k, x, weight);
    if (k == 0) begin();
  }
}

// Adds the products of `count` stages of kBoxes boxes each to the accumulators of a tile. The first
// `workers` warps have a tile and read the stages. Warp 0 also arrives at the mbarriers `empty` for
// the warps without a tile. kBoxes is a constant because a warp takes about three clocks for each
// instruction: with a number known only at run time, loops and addresses would cost more than the
// products. While the last box of a stage is read, the warp makes sure that the next stage is
// there. Beside the last box of all, one is read once more, for nothing. Where stages have one box,
// a stage is released only when the two behind it are there.
template <class T, int kBoxes>
__device__ __forceinline__ void sum_stages(const SoloBlock& block, std::uint32_t stages,
                                           SoloPipelineState& ring, const SoloTile& tile, int count,
                                           int workers, float (&sums)[4]) {
  static_assert((kBoxes == 1 || kBoxes % 2 == 0) && kSoloLeastStages >= 3);
  const int arrivals = threadIdx.x < kWarp ? kSoloWarps - workers + 1 : 1;
  const std::uint32_t full = shared_address(block.full), empty = shared_address(block.empty);
  const auto release = [&](int index) {
    if (threadIdx.x % kWarp == 0) arrive_many(empty + 8 * index, arrivals);
  };
  const auto await = [&] { wait(full + 8 * ring.index, ring.parity); };
  bool there = true;
  const auto look = [&](bool more) {
    there = !more || passed_now(full + 8 * ring.index, ring.parity);
  };
  const auto await_if_needed = [&] {
    if (!there) await();
  };
  const auto nothing = [] {};
  SoloFragments fragments[2];
  // These are the places of the box that is read next, and `place` is that of its stage.
  std::uint32_t x = tile.x, weight = 0;
  int place = 0;
  const auto go_to_stage = [&] {
    place = ring.index, weight = stages + ring.index * kSoloStageBytes + tile.weight;
    ring.advance();
  };
  await();
  go_to_stage();
  fragments[0].load(x, weight);
  if constexpr (kBoxes == 1) {
    if (count > 1) await();
    const auto multiply = [&](const SoloFragments& box, SoloFragments& next, int left) {
      const int done = place;
      if (left > 1) go_to_stage(), x += kSoloBoxRowBytes;
      multiply_and_load<T>(
          box, next, x, weight, sums, [&] { look(left > 2); }, await_if_needed);
      release(done);
    };
#pragma unroll 1
    for (int left = count; left > 0; left -= 2) {
      multiply(fragments[0], fragments[1], left);
      if (left > 1) multiply(fragments[1], fragments[0], left - 1);
    }
  } else {
#pragma unroll 1
    for (int left = count; left > 0; --left) {
#pragma unroll
      for (int box = 1; box < kBoxes; ++box) {
        const std::uint32_t x_at = x + box * kSoloBoxRowBytes,
                            weight_at = weight + box * kSoloBoxBytes;
        if (box == kBoxes - 1)
          multiply_and_load<T>(
              fragments[(box - 1) % 2], fragments[box % 2], x_at, weight_at, sums,
              [&] { look(left > 1); }, await_if_needed);
        else
          multiply_and_load<T>(fragments[(box - 1) % 2], fragments[box % 2], x_at, weight_at, sums,
                               nothing, nothing);
      }
      const int done = place;
      if (left > 1) go_to_stage(), x += kBoxes * kSoloBoxRowBytes;
      multiply_and_load<T>(fragments[1], fragments[0], x, weight, sums, nothing, nothing);
      release(done);
    }
  }
}

// Transposes sums of a warp. Lane 4·g + q passes output g of rows 2q and 2q + 1, and gets the
// outputs 2q and 2q + 1 of row g. The low and the high 16 bits are transposed separately.
__device__ __forceinline__ uint2 transposed_sums(float even, float odd) {
  const std::uint32_t a = __float_as_uint(even), b = __float_as_uint(odd),
                      low = transposed(__byte_perm(a, b, 0x5410)),
                      high = transposed(__byte_perm(a, b, 0x7632));
  return {__byte_perm(low, high, 0x5410), __byte_perm(low, high, 0x7632)};
}
// Does the same, but every lane of quad g gets the 8 outputs of row g.
__device__ __forceinline__ void row_of_sums(float even, float odd, uint4 (&vectors)[2]) {
  const auto [first, second] = transposed_sums(even, odd);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    vectors[i].x = __shfl_sync(kAllLanes, first, 2 * i, 4),
    vectors[i].y = __shfl_sync(kAllLanes, second, 2 * i, 4);
    vectors[i].z = __shfl_sync(kAllLanes, first, 2 * i + 1, 4),
    vectors[i].w = __shfl_sync(kAllLanes, second, 2 * i + 1, 4);
  }
}
// Transposes the outputs of a warp. Lane 4·g + q passes output g of rows 2q and 2q + 1 as a pair of
// T. Every lane of quad g gets the 8 outputs of row g.
__device__ __forceinline__ uint4 row_of_outputs(std::uint32_t pair) {
  const std::uint32_t word = transposed(pair);
  uint4 vector;
  vector.x = __shfl_sync(kAllLanes, word, 0, 4), vector.y = __shfl_sync(kAllLanes, word, 1, 4);
  vector.z = __shfl_sync(kAllLanes, word, 2, 4), vector.w = __shfl_sync(kAllLanes, word, 3, 4);
  return vector;
}

}  // namespace xlate::cuda
