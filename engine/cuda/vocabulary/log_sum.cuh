// The log-sum of a row's vocabulary from what its tiles left.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// By a warp, to all its lanes: lanes take parts in turn, in the same order whatever the row, and a
// tree of fixed shape joins them. A part (x, y) is y·2^x.
__device__ inline float log_sum(const float2* sums, int splits) {
  constexpr float kLn2 = 0.6931471805599453f;
  constexpr int kAtOnce =
      8;  // that are read together; behind the end (−∞, 0), which changes nothing
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
