// Wraps the PTX instructions that the kernels for compute capability 9.0 (sm_90a) use: mbarriers in
// shared memory, which count arrivals and bytes; clusters of thread blocks; the TMA, which copies
// boxes of a matrix; and more. Shared memory is named by its 32-bit address. A stage is one or more
// boxes, mostly of 64 rows × 128 bytes. In a box the 16-byte chunk c of row r lies at chunk c ^ (r
// mod 8), which is the 128-byte swizzle of the TMA and of WGMMA.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace xlate::cuda {

constexpr int kWarpgroup = 128;
constexpr std::uint32_t kBoxBytes = 64 * 128;

__device__ inline std::uint32_t shared_address(const void* data) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(data));
}

// These are mbarriers. A phase ends when all arrivals have come and all bytes that arrivals
// announced have been written.
__device__ inline void init_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialized mbarriers visible to the TMA and to the other blocks of the cluster.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces bytes that the TMA will write in this phase.
__device__ inline void arrive_expecting(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Arrives at the mbarrier that has this address in another block of the cluster.
__device__ inline void arrive_in(std::uint32_t barrier, std::uint32_t block) {
  asm volatile(
      "{\n .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n"
      " mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(block)
      : "memory");
}
// Waits until the phase of this parity has ended.
__device__ inline void wait(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred done;\n mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        " selp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// PipelineState is the index of a stage in a ring, and the parity of the number of rounds through
// the ring.
template <int kStages>
struct PipelineState {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++index == kStages) index = 0, parity ^= 1;
  }
};

// A block that is launched without a cluster is a cluster of its own.
__device__ inline std::uint32_t cluster_blocks() {
  std::uint32_t count;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(count));
  return count;
}
__device__ inline std::uint32_t rank_in_cluster() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Waits for all threads of the cluster, and makes all their earlier writes visible to all of them.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
// Waits for all threads of the cluster, but does not make earlier writes visible, which would take
// long. This suffices when all blocks must have started and published their mbarriers, or must have
// used what they read in each other's shared memory.
__device__ inline void sync_cluster_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                   : "memory");
}
// Waits for all threads of the cluster, and makes visible to all of them what each block wrote to
// its own shared memory, but no other writes.
__device__ inline void share_with_cluster() {
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n"
      "barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
          : "memory");
}

// Copies the box whose first element is (row, column) of the matrix to shared memory at `to`, and
// reports its bytes to the mbarrier. load_box_for copies it to the same address in every block of
// the cluster whose bit is set in `blocks`, and reports the bytes to the mbarrier that has the same
// address in each of them.
__device__ inline void load_box(std::uint32_t to, const CUtensorMap& matrix, int column, int row,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&matrix), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
__device__ inline void load_box_for(std::uint16_t blocks, std::uint32_t to,
                                    const CUtensorMap& matrix, int column, int row,
                                    std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes."
      "multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&matrix), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}
// Copies contiguous bytes to shared memory and reports them to the mbarrier. Both addresses and the
// number of bytes are multiples of 16.
__device__ inline void load_bytes(std::uint32_t to, const void* from, std::uint32_t bytes,
                                  std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// Fetches contiguous bytes into the L2 cache. The address and the number of bytes are multiples of
// 16.
__device__ inline void prefetch_bytes(const void* from, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap& matrix) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&matrix) : "memory");
}

// launch_dependents lets the blocks of the next kernel start as soon as there is room for them, if
// that kernel is launched with programmatic stream serialization. The next kernel itself calls
// wait_for_primary_kernel, which waits until the kernel before it has ended and its writes are
// visible.
__device__ inline void launch_dependents() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ inline void wait_for_primary_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Sets the number of registers of each thread of the calling warpgroup to kCount. Warpgroups that
// need few release registers for those that need many.
template <int kCount>
__device__ inline void increase_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void decrease_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

// These are named barriers of two warpgroups. wait_for_turn waits until the other warpgroup has
// called give_turn or wait_for_turn with the same name, and give_turn does not wait.
__device__ inline void wait_for_turn(int name) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "n"(2 * kWarpgroup) : "memory");
}
__device__ inline void give_turn(int name) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "n"(2 * kWarpgroup) : "memory");
}

// Loads four 8×8 matrices of 16-bit values (ldmatrix). Lane i passes the address of row i mod 8 of
// matrix i / 8.
__device__ inline void load_matrices(std::uint32_t (&out)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}
__device__ inline void store_shared(std::uint32_t address, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}
// Returns the address by which the cluster names this shared address in another of its blocks.
// load_from_cluster loads 16 bytes from such an address.
__device__ inline std::uint32_t address_in(std::uint32_t block, std::uint32_t address) {
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
  return there;
}
__device__ inline uint4 load_from_cluster(std::uint32_t address) {
  uint4 x;
  asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address)
               : "memory");
  return x;
}

}  // namespace xlate::cuda
