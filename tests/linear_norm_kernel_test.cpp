// Tests when the kernel that fuses a product with its norm is chosen, and for which tiles. No GPU
// is needed for that. same_row_test.cpp relies on the choice: it compares the results of 257 rows,
// which two kernels compute, with those of up to 16384 rows, which the fused kernel computes.
#include <gtest/gtest.h>

#include <array>

#include "engine/cuda/norms/norms.h"

namespace xlate::test {
namespace {

constexpr std::array<std::int64_t, 4> kWidths{256, 512, 768, 1024};

TEST(LinearNormChoice, ServesFourWidthsInOneComputeCapability) {
  for (const std::int64_t width : kWidths) {
    EXPECT_TRUE(cuda::linear_norm_supports(90, 64, width)) << width;
    EXPECT_TRUE(cuda::linear_norm_supports(90, 4096, width)) << width;
    EXPECT_FALSE(cuda::linear_norm_supports(90, 4096 + 32, width)) << width;
    EXPECT_FALSE(cuda::linear_norm_supports(90, 0, width)) << width;
    EXPECT_FALSE(cuda::linear_norm_supports(80, 4096, width)) << width;
    EXPECT_FALSE(cuda::linear_norm_supports(100, 4096, width)) << width;
  }
  for (const std::int64_t width : {0, 64, 255, 384, 640, 1000, 1280, 2048})
    EXPECT_FALSE(cuda::linear_norm_supports(90, 512, width)) << width;
}

TEST(LinearNormChoice, TakesManyRowsAndNotFew) {
  for (const std::int64_t width : kWidths) {
    for (const std::int64_t depth : {64, 512, 1024, 2048, 3072, 4096, 8192}) {
      EXPECT_FALSE(cuda::linear_norm_is_faster(90, 257, depth, width)) << depth << "→" << width;
      EXPECT_TRUE(cuda::linear_norm_is_faster(90, 16383, depth, width)) << depth << "→" << width;
      bool faster = false;
      for (std::int64_t rows = 1; rows < 16384; rows += 61) {
        const bool now = cuda::linear_norm_is_faster(90, rows, depth, width);
        EXPECT_TRUE(now || !faster) << rows << " rows of " << depth << "→" << width;
        faster = now;
      }
    }
  }
}

// The kernel exists for these tiles alone. A block's part of a tile must be a multiple of 8 rows.
TEST(LinearNormChoice, TilesAreThoseOfTheKernel) {
  for (const std::int64_t width : kWidths) {
    const std::int64_t blocks = width / cuda::kLinearNormOutputs;
    for (const int multiprocessors : {8, 78, 114, 132}) {
      for (std::int64_t rows = 1; rows < 20000; rows += 29) {
        const int tile = cuda::linear_norm_tile(rows, 1024, width, multiprocessors);
        ASSERT_TRUE(tile >= 64 && tile <= 192 && tile % 32 == 0 && tile % (8 * blocks) == 0)
            << tile << " rows a tile for " << rows << " rows of width " << width << " on "
            << multiprocessors << " multiprocessors";
      }
    }
  }
}

}  // namespace
}  // namespace xlate::test
