// What compute capability 9.0 alone has (sm_90a), as PTX: barriers in shared memory that count bytes, clusters of two blocks, the copy engine
// that moves boxes of a matrix, and products of a warpgroup. Shared memory is named by its 32-bit address. A stage is one or more boxes of
// 64 rows × 128 bytes, in which the 16-byte chunk c of row r lies at chunk c ^ (r mod 8): the copy engine's and the products' 128-byte swizzle.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "engine/cuda/kernels.h"

namespace xlate::cuda {

constexpr int kWarpgroup = 128;
constexpr std::uint32_t kBoxBytes = 64 * 128;

__device__ inline std::uint32_t shared_address(const void* data) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(data)); }

// Barriers. A phase ends when all arrivals have come, and the bytes that one of them announced.
__device__ inline void init_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(std::uint32_t barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
__device__ inline void arrive_expecting(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// At the barrier that lies at this address in another block of the cluster.
__device__ inline void arrive_in(std::uint32_t barrier, std::uint32_t block) {
  asm volatile(
      "{\n .reg .b32 there;\n mapa.shared::cluster.u32 there, %0, %1;\n mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(block)
      : "memory");
}
__device__ inline void wait(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred done;\n mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n selp.u32 %0, 1, 0, done;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// Clusters; a block launched without one is a cluster of its own.
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
__device__ inline void sync_cluster() { asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory"); }

// The box whose first element is (row, column) of the matrix, to `to`; announced to `barrier`, there too with several blocks.
__device__ inline void load_box(std::uint32_t to, const CUtensorMap& matrix, int column, int row, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(&matrix),
               "r"(column), "r"(row), "r"(barrier)
               : "memory");
}
__device__ inline void load_box_for(std::uint16_t blocks, std::uint32_t to, const CUtensorMap& matrix, int column, int row, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&matrix), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}
// So many bytes that follow each other, all multiples of 16.
__device__ inline void load_bytes(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap& matrix) { asm volatile("prefetch.tensormap [%0];" ::"l"(&matrix) : "memory"); }

// The next kernel may take the place of blocks that end; it waits itself for what they leave (merge.cu).
__device__ inline void let_next_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// Registers of a warpgroup's threads, handed from one to another.
template <int kCount>
__device__ inline void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount)); }
template <int kCount>
__device__ inline void leave_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount)); }

// Named barriers of two warpgroups: one waits until the other has been there.
__device__ inline void wait_for_turn(int name) { asm volatile("bar.sync %0, %1;" ::"r"(name), "n"(2 * kWarpgroup) : "memory"); }
__device__ inline void give_turn(int name) { asm volatile("bar.arrive %0, %1;" ::"r"(name), "n"(2 * kWarpgroup) : "memory"); }

// Four 8×8 matrices of 16-bit values; lane i names row i mod 8 of matrix i / 8.
__device__ inline void load_matrices(std::uint32_t (&out)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row)
               : "memory");
}

// Where a product finds a matrix of boxes: 1024 bytes from 8 rows to the next 8, 128-byte swizzle. 16 columns further on is + 2.
__device__ inline std::uint64_t matrix_at(std::uint32_t address) {
  return static_cast<std::uint64_t>(address >> 4) | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

#define XLATE_SUMS_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define XLATE_SUMS(d)                                                                                                          \
  XLATE_SUMS_8(d, 0), XLATE_SUMS_8(d, 8), XLATE_SUMS_8(d, 16), XLATE_SUMS_8(d, 24), XLATE_SUMS_8(d, 32), XLATE_SUMS_8(d, 40), \
      XLATE_SUMS_8(d, 48), XLATE_SUMS_8(d, 56)
#define XLATE_SUM_NAMES                                                                                                                   \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "  \
  "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, "  \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define XLATE_MULTIPLY_HELD(type)                                                                                                         \
  asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, %69, 0;\n wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type              \
               " " XLATE_SUM_NAMES ", {%64, %65, %66, %67}, %68, add, 1, 1, 0;\n}"                                                        \
               : XLATE_SUMS(d)                                                                                                            \
               : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "l"(columns), "r"(add))
#define XLATE_MULTIPLY(type)                                                                                                              \
  asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, %66, 0;\n wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type              \
               " " XLATE_SUM_NAMES ", %64, %65, add, 1, 1, 0, 0;\n}"                                                                      \
               : XLATE_SUMS(d)                                                                                                            \
               : "l"(rows), "l"(columns), "r"(add))

// d (+)= rows [64, 16] · columns [128, 16]ᵀ, in float32; runs on until finish_products. In warp w of the four, lane l holds of rows
// 16·w + l / 4 + 8·h the columns 8·j + 2·(l mod 4) + b at d[4·j + 2·h + b]. The rows lie in registers, as load_matrices leaves them, …
template <class T>
__device__ inline void multiply(float (&d)[64], const std::uint32_t (&rows)[4], std::uint64_t columns, int add);
template <>
__device__ inline void multiply<__half>(float (&d)[64], const std::uint32_t (&rows)[4], std::uint64_t columns, int add) { XLATE_MULTIPLY_HELD("f16"); }
template <>
__device__ inline void multiply<__nv_bfloat16>(float (&d)[64], const std::uint32_t (&rows)[4], std::uint64_t columns, int add) { XLATE_MULTIPLY_HELD("bf16"); }
// … or in shared memory.
template <class T>
__device__ inline void multiply(float (&d)[64], std::uint64_t rows, std::uint64_t columns, int add);
template <>
__device__ inline void multiply<__half>(float (&d)[64], std::uint64_t rows, std::uint64_t columns, int add) { XLATE_MULTIPLY("f16"); }
template <>
__device__ inline void multiply<__nv_bfloat16>(float (&d)[64], std::uint64_t rows, std::uint64_t columns, int add) { XLATE_MULTIPLY("bf16"); }

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until no more than kLeft of the committed groups run.
template <int kLeft>
__device__ inline void wait_for_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory"); }
// Until all have ended: only then may d be read.
__device__ inline void finish_products(float (&d)[64]) { asm volatile("wgmma.wait_group.sync.aligned 0;" : XLATE_SUMS(d) : : "memory"); }

// Nothing, but what is computed from d behind it is not computed before it, where registers are scarce.
__device__ inline void keep_behind(float (&d)[64]) { asm volatile("" : XLATE_SUMS(d)); }

#undef XLATE_SUMS_8
#undef XLATE_SUMS
#undef XLATE_SUM_NAMES
#undef XLATE_MULTIPLY_HELD
#undef XLATE_MULTIPLY

}  // namespace xlate::cuda
