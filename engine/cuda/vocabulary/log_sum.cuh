// Joins the sums of exponentials of a row's vocabulary tiles into the row's log-sum-exp, for
// merge.cu and for solo/search.cuh.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// Returns the logarithm of the sum over all splits to all lanes of a warp. The pair (x, y) of a
// split stands for y·2^x. Lane i adds splits i, i + 32, … in ascending order, and a tree of fixed
// shape joins the lanes, so that the order is the same for every row.
__device__ inline float log_sum(const float2* sums, int splits) {
  constexpr float kLn2 = 0.6931471805599453f;
  // A lane reads this many splits at once. Behind the end it uses (−∞, 0), which changes nothing.
  constexpr int kAtOnce = 8;
  float top = -INFINITY, sum = 0;
  for (int first = threadIdx.x % kWarp; first < splits; first += kAtOnce * kWarp) {
    float2 read[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      read[i] =
          first + i * kWarp < splits ? __ldcg(sums + first + i * kWarp) : float2{-INFINITY, 0.0f};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float next = fmaxf(top, read[i].x), reference = next == -INFINITY ? 0.0f : next;
      sum = fmaf(sum, exp2f(top - reference), read[i].y * exp2f(read[i].x - reference));
      top = next;
    }
  }
  const float most = warp_max(top);
  return (most + log2f(warp_sum(sum * exp2f(top - (most == -INFINITY ? 0.0f : most))))) * kLn2;
}

}  // namespace xlate::cuda
