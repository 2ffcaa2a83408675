// This file has reductions over the logits of a row by a block of kRowThreads threads.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr float kNoLogit = -INFINITY;

// Returns the result of reduce, which is warp_max or warp_sum, over all threads of the block, to
// all of them. `shared` has a float for each warp.
template <class Reduce>
__device__ float block_reduce(float x, float neutral, const Reduce& reduce, float* shared) {
  x = reduce(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = threadIdx.x < kRowThreads / kWarp ? shared[threadIdx.x] : neutral;
  if (threadIdx.x < kWarp) {
    x = reduce(x);
    if (threadIdx.x == 0) shared[0] = x;
  }
  __syncthreads();
  x = shared[0];
  __syncthreads();
  return x;
}
__device__ inline float block_max(float x, float* shared) {
  return block_reduce(
      x, kNoLogit, [](float y) { return warp_max(y); }, shared);
}
__device__ inline float block_sum(float x, float* shared) {
  return block_reduce(
      x, 0.0f, [](float y) { return warp_sum(y); }, shared);
}

// Holds a thread's sum of exponentials, relative to the largest logit that the thread has seen.
struct RunningSum {
  float max = kNoLogit, sum = 0;
  __device__ void add(float logit) {
    if (logit > max) {
      sum = sum * __expf(max - logit) + 1.0f;
      max = logit;
    } else {
      sum += __expf(logit - max);
    }
  }
  // Returns the log-sum-exp of what all threads of the block have added, to all of them.
  __device__ float block_log_sum(float* shared) const {
    const float row_max = block_max(max, shared);
    return row_max + logf(block_sum(max == kNoLogit ? 0.0f : sum * __expf(max - row_max), shared));
  }
};

}  // namespace
}  // namespace xlate::cuda
