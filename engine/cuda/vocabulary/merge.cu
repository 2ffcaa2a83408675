// Merges what has been found in the splits of each row's vocabulary: it computes the log-sum-exp of
// all splits (log_sum.cuh) and finds the best tokens of their lists. A warp processes one
// row. All arithmetic is in float32.
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/vocabulary/log_sum.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kRowsPerBlock = 4;
constexpr int kMostCursors = kMostListSplits / kWarp;
constexpr float kMinusInfinity = -INFINITY;

// Returns an integer such that integers have the order of their floats. −0 counts as 0.
__device__ unsigned place_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// A lane's cursors in the lists of splits lane, lane + 32, …: for each list, how many entries have
// been taken from it, and the best one that is left.
struct ListCursors {
  const TokenValue* lists;
  int splits, count, lane;
  TokenValue front[kMostCursors];
  int taken[kMostCursors] = {};

  __device__ TokenValue load(int k) const {
    const int split = lane + k * kWarp;
    return split < splits && taken[k] < count ? lists[split * count + taken[k]]
                                              : TokenValue{kMinusInfinity, INT32_MAX};
  }
  __device__ void start() {
#pragma unroll
    for (int k = 0; k < kMostCursors; ++k) front[k] = load(k);
  }
  __device__ TokenValue best() const {
    TokenValue most = front[0];
#pragma unroll
    for (int k = 1; k < kMostCursors; ++k) most = better(front[k], most) ? front[k] : most;
    return most;
  }
  // Moves on the cursor whose front entry has this token.
  __device__ void take(int token) {
#pragma unroll
    for (int k = 0; k < kMostCursors; ++k) {
      if (front[k].token == token && front[k].value > kMinusInfinity)
        ++taken[k], front[k] = load(k);
    }
  }
};

__global__ void __launch_bounds__(kRowsPerBlock* kWarp)
    merge_kernel(RowPartials partials, std::int64_t rows, RowCandidates out) {
#if __CUDA_ARCH__ >= 900
  wait_for_primary_kernel();  // This kernel may have started before its input is complete.
#endif
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp;
  if (row >= rows) return;
  ListCursors cursors{partials.lists + row * partials.list_splits * partials.count,
                      partials.list_splits, partials.count, lane};
  cursors.start();
  const float sum = log_sum(partials.sums + row * partials.sum_splits, partials.sum_splits);
  float* values = out.values + row * out.count;
  std::int32_t* tokens = out.tokens + row * out.count;
  for (int i = 0; i < out.count; ++i) {
    const TokenValue own = cursors.best();
    const bool any = own.value > kMinusInfinity;
    const unsigned place = any ? place_of(own.value) : 0,
                   best = __reduce_max_sync(kAllLanes, place);
    const int token = __reduce_min_sync(kAllLanes, any && place == best ? own.token : INT32_MAX);
    if (best == 0) {
      // A logit that is +∞ or NaN makes the sum NaN, and NaN is in no list.
      if (lane == 0) values[i] = isnan(sum) ? sum : kMinusInfinity, tokens[i] = 0;
    } else if (place == best && own.token == token) {
      values[i] = own.value - sum, tokens[i] = token;
      cursors.take(token);
    }
  }
}

}  // namespace

void merge_rows(const RowPartials& partials, std::int64_t rows, const RowCandidates& out,
                cudaStream_t stream) {
  if (rows == 0) return;
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock));
  config.blockDim = dim3(kRowsPerBlock * kWarp);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  cudaLaunchKernelEx(&config, merge_kernel, partials, rows, out);
}

}  // namespace xlate::cuda
