// What a row's vocabulary left in parts, made one: the log-sum of all and the best of the parts'
// lists. A warp per row; lanes take parts in turn, in the same order whatever the row, and a tree
// of fixed shape joins them. Float32.
#include "engine/cuda/hopper.cuh"
#include "engine/cuda/vocabulary/log_sum.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kRows = 4;  // of a block
constexpr int kMostHeads = kMostListParts / kWarp;
constexpr float kNone = -INFINITY;

// The order of floats as one of integers; −0 is 0.
__device__ unsigned place_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// A lane's parts, lane, lane + 32, …: what is left of each begins at its head.
struct Heads {
  const TokenValue* lists;
  int parts, count, lane;
  TokenValue head[kMostHeads];
  int taken[kMostHeads] = {};

  __device__ TokenValue load(int k) const {
    const int part = lane + k * kWarp;
    return part < parts && taken[k] < count ? lists[part * count + taken[k]]
                                            : TokenValue{kNone, INT32_MAX};
  }
  __device__ void start() {
#pragma unroll
    for (int k = 0; k < kMostHeads; ++k) head[k] = load(k);
  }
  __device__ TokenValue best() const {
    TokenValue most = head[0];
#pragma unroll
    for (int k = 1; k < kMostHeads; ++k) most = better(head[k], most) ? head[k] : most;
    return most;
  }
  __device__ void take(int token) {
#pragma unroll
    for (int k = 0; k < kMostHeads; ++k) {
      if (head[k].token == token && head[k].value > kNone) ++taken[k], head[k] = load(k);
    }
  }
};

__global__ void __launch_bounds__(kRows* kWarp)
    merge_kernel(RowPartials partials, std::int64_t rows, RowCandidates out) {
#if __CUDA_ARCH__ >= 900
  wait_for_kernel();  // it may have been started before what it reads was there
#endif
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
  if (row >= rows) return;
  Heads heads{partials.lists + row * partials.list_parts * partials.count, partials.list_parts,
              partials.count, lane};
  heads.start();
  const float sum = log_sum(partials.sums + row * partials.sum_parts, partials.sum_parts);
  float* values = out.values + row * out.count;
  std::int32_t* tokens = out.tokens + row * out.count;
  for (int i = 0; i < out.count; ++i) {
    const TokenValue own = heads.best();
    const bool any = own.value > kNone;
    const unsigned place = any ? place_of(own.value) : 0,
                   best = __reduce_max_sync(kAllLanes, place);
    const int token = __reduce_min_sync(kAllLanes, any && place == best ? own.token : INT32_MAX);
    if (best == 0) {
      if (lane == 0) values[i] = kNone, tokens[i] = 0;
    } else if (place == best && own.token == token) {
      values[i] = own.value - sum, tokens[i] = token;
      heads.take(token);
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
  config.gridDim = dim3(static_cast<unsigned>((rows + kRows - 1) / kRows));
  config.blockDim = dim3(kRows * kWarp);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = major >= 9 ? 1 : 0;
  cudaLaunchKernelEx(&config, merge_kernel, partials, rows, out);
}

}  // namespace xlate::cuda
