// Finds, for each row of packed sentences, the token of its source that has the largest weight in
// cross-attention on average over heads. A block computes one row. It goes over the keys twice, so
// that no memory depends on the length of a source: first for the sum of each head's softmax, and
// then for the mean weight of each key.
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/rows.cuh"

namespace xlate::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

// This is the softmax of a head over all keys: the weight of a score s is exp(s − max) · inverse.
struct HeadSoftmax {
  float max, inverse;
};

// Computes the softmax of one head by a warp. score_of(t) returns the score of key t.
template <class ScoreOf>
__device__ HeadSoftmax softmax_of(std::int64_t n, const ScoreOf& score_of) {
  float max = -INFINITY, sum = 0;
  for (std::int64_t t = threadIdx.x % kWarp; t < n; t += kWarp) {
    const float score = score_of(t), next = fmaxf(max, score);
    sum = sum * expf(max - next) + expf(score - next);
    max = next;
  }
  const float most = warp_max(max);
  return {most, 1.0f / warp_sum(max == -INFINITY ? 0.0f : sum * expf(max - most))};
}

struct Weighted {
  float weight;
  std::int32_t key;
};

// The first key of equal weights wins.
__device__ bool better(const Weighted& a, const Weighted& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.key < b.key;
}

__device__ Weighted best_of_block(Weighted best, Weighted* shared) {
  shared[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half && better(shared[threadIdx.x + half], shared[threadIdx.x]))
      shared[threadIdx.x] = shared[threadIdx.x + half];
    __syncthreads();
  }
  return shared[0];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    align_kernel(AttendArgs<T> args, PromptKeys<T> all, const std::int32_t* offsets,
                 const std::int32_t* source_offsets, std::int64_t sentences, HeadSet heads,
                 std::int32_t* out) {
  __shared__ HeadSoftmax softmax[HeadSet::kMost];
  __shared__ Weighted shared[kThreads];
  const std::int64_t row = blockIdx.x;
  const int width = static_cast<int>(args.width / args.heads);
  const std::int64_t sentence =
      find_sentence(sentences, all.first + row, [&](std::int64_t b) { return offsets[b]; });
  const std::int64_t begin = source_offsets[sentence], n = source_offsets[sentence + 1] - begin;
  const T* query = args.query + row * args.query_stride;
  const auto score_of = [&](int head, std::int64_t t) {
    return args.scale *
           dot(query + head * width, all.rows + (begin + t) * all.stride + head * width, width);
  };
  for (int head = threadIdx.x / kWarp; head < args.heads; head += kWarps) {
    if (!heads.has(head)) continue;
    const HeadSoftmax of = softmax_of(n, [&](std::int64_t t) { return score_of(head, t); });
    if (threadIdx.x % kWarp == 0) softmax[head] = of;
  }
  __syncthreads();
  Weighted best{-1.0f, 0};
  for (std::int64_t t = threadIdx.x; t < n; t += kThreads) {
    float weight = 0;
    for (int head = 0; head < args.heads; ++head) {
      if (heads.has(head))
        weight += expf(score_of(head, t) - softmax[head].max) * softmax[head].inverse;
    }
    if (weight > best.weight) best = {weight, static_cast<std::int32_t>(t)};
  }
  best = best_of_block(best, shared);
  if (threadIdx.x == 0) out[row] = best.key;
}

}  // namespace

template <class T>
void align(const AttendArgs<T>& args, const PromptKeys<T>& keys, const std::int32_t* offsets,
           const std::int32_t* source_offsets, std::int64_t sentences, std::int64_t rows,
           const HeadSet& heads, std::int32_t* out, cudaStream_t stream) {
  if (rows > 0)
    align_kernel<T><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        args, keys, offsets, source_offsets, sentences, heads, out);
}

#define INSTANTIATE(T)                                                                    \
  template void align<T>(const AttendArgs<T>&, const PromptKeys<T>&, const std::int32_t*, \
                         const std::int32_t*, std::int64_t, std::int64_t, const HeadSet&, \
                         std::int32_t*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
