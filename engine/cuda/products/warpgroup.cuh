// Multiplies by a warpgroup on compute capability 9.0 (sm_90a, WGMMA): 64 rows by 2·kAccumulators
// columns, with float32 accumulators in registers. Products run asynchronously until they are
// waited for. Matrices in shared memory are boxes of 128-byte rows (hopper.cuh).
#pragma once

#include "engine/cuda/hopper.cuh"

namespace xlate::cuda {

// Returns the descriptor of a matrix of boxes in shared memory: 8 rows take 1024 bytes, with the
// 128-byte swizzle. The address counts in 16 bytes, so that adding 2 to the descriptor moves on by
// 16 columns.
__device__ inline std::uint64_t matrix_at(std::uint32_t address) {
  return static_cast<std::uint64_t>(address >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

// Computes d = rows [64, 16] · columns [2·kAccumulators, 16]ᵀ, or adds the product to d if `add` is
// not 0. In warp w of the four, lane l holds the columns 8·j + 2·(l mod 4) + b of the rows 16·w + l
// / 4 + 8·h at d[4·j + 2·h + b]. The first form takes the rows in registers, as load_matrices
// leaves them. The second form takes them in shared memory.
template <class T>
__device__ void multiply(float (&d)[64], const std::uint32_t (&rows)[4], std::uint64_t columns,
                         int add);
template <class T, int kAccumulators>
__device__ void multiply(float (&d)[kAccumulators], std::uint64_t rows, std::uint64_t columns,
                         int add);

#define XLATE_SUMS_8(d, i)                                                                    \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define XLATE_SUMS_16(d) XLATE_SUMS_8(d, 0), XLATE_SUMS_8(d, 8)
#define XLATE_SUMS_32(d) XLATE_SUMS_16(d), XLATE_SUMS_8(d, 16), XLATE_SUMS_8(d, 24)
#define XLATE_SUMS_48(d) XLATE_SUMS_32(d), XLATE_SUMS_8(d, 32), XLATE_SUMS_8(d, 40)
#define XLATE_SUMS_64(d) XLATE_SUMS_48(d), XLATE_SUMS_8(d, 48), XLATE_SUMS_8(d, 56)
#define XLATE_SUMS_80(d) XLATE_SUMS_64(d), XLATE_SUMS_8(d, 64), XLATE_SUMS_8(d, 72)
#define XLATE_SUMS_96(d) XLATE_SUMS_80(d), XLATE_SUMS_8(d, 80), XLATE_SUMS_8(d, 88)
#define XLATE_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define XLATE_NAMES_32                       \
  XLATE_NAMES_16                             \
  ", %16, %17, %18, %19, %20, %21, %22, %23" \
  ", %24, %25, %26, %27, %28, %29, %30, %31"
#define XLATE_NAMES_48                       \
  XLATE_NAMES_32                             \
  ", %32, %33, %34, %35, %36, %37, %38, %39" \
  ", %40, %41, %42, %43, %44, %45, %46, %47"
#define XLATE_NAMES_64                       \
  XLATE_NAMES_48                             \
  ", %48, %49, %50, %51, %52, %53, %54, %55" \
  ", %56, %57, %58, %59, %60, %61, %62, %63"
#define XLATE_NAMES_80                       \
  XLATE_NAMES_64                             \
  ", %64, %65, %66, %67, %68, %69, %70, %71" \
  ", %72, %73, %74, %75, %76, %77, %78, %79"
#define XLATE_NAMES_96                       \
  XLATE_NAMES_80                             \
  ", %80, %81, %82, %83, %84, %85, %86, %87" \
  ", %88, %89, %90, %91, %92, %93, %94, %95"

#define XLATE_MULTIPLY_HELD(T, type)                                                       \
  template <>                                                                              \
  __device__ inline void multiply<T>(float(&d)[64], const std::uint32_t(&rows)[4],         \
                                     std::uint64_t columns, int add) {                     \
    asm volatile(                                                                          \
        "{\n .reg .pred add;\n setp.ne.b32 add, %69, 0;\n"                                 \
        " wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" XLATE_NAMES_64  \
        "}, {%64, %65, %66, %67}, %68, add, 1, 1, 0;\n}"                                   \
        : XLATE_SUMS_64(d)                                                                 \
        : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "l"(columns), "r"(add)); \
  }
XLATE_MULTIPLY_HELD(__half, "f16")
XLATE_MULTIPLY_HELD(__nv_bfloat16, "bf16")

#define XLATE_MULTIPLY(T, type, columns_, sums, rows_at, columns_at, add_at)                       \
  template <>                                                                                      \
  __device__ inline void multiply<T, sums>(float(&d)[sums], std::uint64_t rows,                    \
                                           std::uint64_t columns, int add) {                       \
    asm volatile("{\n .reg .pred add;\n setp.ne.b32 add, %" #add_at                                \
                 ", 0;\n"                                                                          \
                 " wgmma.mma_async.sync.aligned.m64n" #columns_ "k16.f32." type "." type           \
                 " {" XLATE_NAMES_##sums "}, %" #rows_at ", %" #columns_at ", add, 1, 1, 0, 0;\n}" \
                 : XLATE_SUMS_##sums(d)                                                            \
                 : "l"(rows), "l"(columns), "r"(add));                                             \
  }
#define XLATE_MULTIPLY_BOTH(columns, sums, rows_at, columns_at, add_at)     \
  XLATE_MULTIPLY(__half, "f16", columns, sums, rows_at, columns_at, add_at) \
  XLATE_MULTIPLY(__nv_bfloat16, "bf16", columns, sums, rows_at, columns_at, add_at)
XLATE_MULTIPLY_BOTH(64, 32, 32, 33, 34)
XLATE_MULTIPLY_BOTH(96, 48, 48, 49, 50)
XLATE_MULTIPLY_BOTH(128, 64, 64, 65, 66)
XLATE_MULTIPLY_BOTH(160, 80, 80, 81, 82)
XLATE_MULTIPLY_BOTH(192, 96, 96, 97, 98)

// begin_products comes before the first product that reads or writes registers which other
// instructions have written. commit_products makes a group of the products since the last call.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kLeft of the committed groups still run.
template <int kLeft>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

// Waits until all products have ended. Only then may d be read.
template <int kAccumulators>
__device__ void wait_for_all_products(float (&d)[kAccumulators]);
// Emits no instruction, but the compiler moves no computation that uses d across it. After
// wait_for_all_products it covers a second array of accumulators, and elsewhere it keeps a later
// use of d from being moved ahead, which would take registers that are scarce.
template <int kAccumulators>
__device__ void keep_behind(float (&d)[kAccumulators]);
#define XLATE_FINISH(sums)                                                                \
  template <>                                                                             \
  __device__ inline void wait_for_all_products<sums>(float(&d)[sums]) {                   \
    asm volatile("wgmma.wait_group.sync.aligned 0;" : XLATE_SUMS_##sums(d) : : "memory"); \
  }                                                                                       \
  template <>                                                                             \
  __device__ inline void keep_behind<sums>(float(&d)[sums]) {                             \
    asm volatile("" : XLATE_SUMS_##sums(d));                                              \
  }
XLATE_FINISH(32)
XLATE_FINISH(48)
XLATE_FINISH(64)
XLATE_FINISH(80)
XLATE_FINISH(96)

#undef XLATE_SUMS_8
#undef XLATE_SUMS_16
#undef XLATE_SUMS_32
#undef XLATE_SUMS_48
#undef XLATE_SUMS_64
#undef XLATE_SUMS_80
#undef XLATE_SUMS_96
#undef XLATE_NAMES_16
#undef XLATE_NAMES_32
#undef XLATE_NAMES_48
#undef XLATE_NAMES_64
#undef XLATE_NAMES_80
#undef XLATE_NAMES_96
#undef XLATE_MULTIPLY_HELD
#undef XLATE_MULTIPLY
#undef XLATE_MULTIPLY_BOTH
#undef XLATE_FINISH

}  // namespace xlate::cuda
