// Finds the log-sum-exp and the best candidates of logits in memory, without sorting. A block
// processes one row. The first loop finds the log-sum-exp and the largest logit of each thread. The
// count-th largest of these is a lower bound of the candidates. In the second loop the threads
// whose largest logit reaches the bound read their logits again, and the few that reach it are
// ranked in shared memory.
#include "engine/cuda/vocabulary/row_sums.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = kRowThreads;
// At most this many logits can be ranked in shared memory. If more reach the bound, the best are
// found one after another.
constexpr int kListed = 2048;
constexpr float kMinusInfinity = kNoLogit;

struct Best {
  float value;
  std::int32_t token;
};

// Returns whether a comes before b: larger values come first, and of equal values smaller ids.
__device__ bool better(float a, std::int32_t a_id, float b, std::int32_t b_id) {
  return a != b ? a > b : a_id < b_id;
}

__device__ bool is_never(const RulesView& rules, std::int32_t id) {
  for (int i = 0; i < rules.never_chosen_count; ++i) {
    if (rules.never_chosen[i] == id) return true;
  }
  return false;
}

// Views the logits of a row. at() adds the bias, and allowed() says whether a token may be chosen.
struct RowLogits {
  const float* logits;
  const float* bias;
  const RulesView* rules;
  __device__ float at(std::int64_t v) const { return bias ? logits[v] + bias[v] : logits[v]; }
  __device__ bool allowed(std::int64_t v) const {
    return !is_never(*rules, static_cast<std::int32_t>(v));
  }
};

// Returns the best of the allowed logits that come after `last` in the order of `better`, to all
// threads. This is for rows of which too many logits reach the bound.
__device__ Best next_best(const RowLogits& row, std::int64_t vocabulary, Best last, Best* shared) {
  Best best{kMinusInfinity, INT32_MAX};
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
    const float value = row.at(v);
    const auto id = static_cast<std::int32_t>(v);
    if (better(last.value, last.token, value, id) && better(value, id, best.value, best.token) &&
        row.allowed(v))
      best = {value, id};
  }
  shared[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      const Best other = shared[threadIdx.x + half];
      if (better(other.value, other.token, shared[threadIdx.x].value, shared[threadIdx.x].token))
        shared[threadIdx.x] = other;
    }
    __syncthreads();
  }
  best = shared[0];
  __syncthreads();
  return best;
}

// With kNormalized the logits are log-probabilities already, as apply_row_rules leaves them.
template <bool kNormalized>
__global__ void __launch_bounds__(kThreads)
    select_kernel(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                  const float* bias, RulesView rules, std::int64_t first_row, RowCandidates out) {
  __shared__ float partial[kThreads];
  __shared__ Best list[kListed];
  __shared__ float bound;
  __shared__ int listed;
  const RowLogits row{logits + blockIdx.x * stride, bias, &rules};

  // The first loop finds the maximum of the logits that count, the maximum of the allowed ones, and
  // the sum of exponentials relative to the running maximum.
  RunningSum sum;
  float own = kMinusInfinity;
  bool overflow = false;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
    const float value = row.at(v);
    const bool allowed = row.allowed(v);
    if (allowed) own = fmaxf(own, value);
    overflow |= isnan(value) || value == INFINITY;
    if (kNormalized || (!allowed && rules.renormalize)) continue;
    sum.add(value);
  }
  const float log_sum = kNormalized ? 0.0f : sum.block_log_sum(partial);
  float* values = out.values + (first_row + blockIdx.x) * out.count;
  std::int32_t* tokens = out.tokens + (first_row + blockIdx.x) * out.count;
  if (__syncthreads_or(overflow)) {
    for (int i = threadIdx.x; i < out.count; i += kThreads) values[i] = NAN, tokens[i] = 0;
    return;
  }

  // The bound is the count-th largest of the threads' maxima, or −∞ if there are fewer threads than
  // candidates.
  partial[threadIdx.x] = own;
  if (threadIdx.x == 0) listed = 0, bound = kMinusInfinity;
  __syncthreads();
  int rank = 0;
  for (int i = 0; i < kThreads; ++i)
    rank += partial[i] > own || (partial[i] == own && i < threadIdx.x);
  if (rank == out.count - 1) bound = own;
  __syncthreads();

  // The second loop lists what reaches the bound.
  if (own >= bound && own > kMinusInfinity) {
    for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
      const float value = row.at(v);
      if (value >= bound && value > kMinusInfinity && row.allowed(v)) {
        const int place = atomicAdd(&listed, 1);
        if (place < kListed) list[place] = {value, static_cast<std::int32_t>(v)};
      }
    }
  }
  __syncthreads();
  const int found = listed;
  if (found <= kListed) {
    for (int i = threadIdx.x; i < found; i += kThreads) {
      int place = 0;
      for (int j = 0; j < found; ++j)
        place += better(list[j].value, list[j].token, list[i].value, list[i].token);
      if (place < out.count) values[place] = list[i].value - log_sum, tokens[place] = list[i].token;
    }
    for (int i = found + threadIdx.x; i < out.count; i += kThreads)
      values[i] = kMinusInfinity, tokens[i] = 0;
    return;
  }
  __syncthreads();
  Best last{INFINITY, -1};
  for (int i = 0; i < out.count; ++i) {
    last = next_best(row, vocabulary, last, list);
    if (threadIdx.x == 0)
      values[i] = last.value - log_sum, tokens[i] = last.value > kMinusInfinity ? last.token : 0;
  }
}

}  // namespace

void select_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                 const float* bias, const RulesView& rules, std::int64_t first, std::int64_t rows,
                 const RowCandidates& out, cudaStream_t stream) {
  if (rows <= 0) return;
  const auto kernel = rules.has_row_rules ? select_kernel<true> : select_kernel<false>;
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(logits, stride, vocabulary, bias,
                                                               rules, first, out);
}

}  // namespace xlate::cuda
