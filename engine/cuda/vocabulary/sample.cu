// Draws a token of each row of log-probabilities in memory (engine/sampling.h), with a block for
// each row and without sorting. The edges of top-k and top-p are found digit by digit, by counting
// logits and by adding weights in bins. All sums are of whole numbers, so that their order does not
// matter.
#include "engine/cuda/vocabulary/row_sums.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = kRowThreads, kBins = 256, kDigits = 4;
using Weight = unsigned long long;

// Returns a number that is larger for larger values.
__device__ std::uint32_t key_of(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Views the logits of a row as weights.
struct Row {
  const float* logits;
  std::int64_t vocabulary;
  float max, temperature;
  __device__ Weight weight(float logit) const {
    return logit == kNoLogit ? 0 : sampling_weight(logit - max, temperature);
  }
};

// An edge lies between what is kept and what is not: `key` is the smallest key that is kept, and
// `above` the sum over all larger ones.
struct Edge {
  std::uint32_t key;
  Weight above;
};

// Finds the largest key for which the sum over it and all larger keys reaches `reach`, which is at
// most the sum over all keys. amount(v) returns what logit v adds. `bins` is in shared memory.
template <class Amount>
__device__ Edge find_edge(const Row& row, Weight reach, const Amount& amount, Weight* bins) {
  __shared__ Edge edge;
  if (threadIdx.x == 0) edge = {0, 0};
  for (int digit = kDigits - 1; digit >= 0; --digit) {
    bins[threadIdx.x] = 0;
    __syncthreads();
    const std::uint32_t found = edge.key;
    const int shift = 8 * digit;
    const std::uint32_t mask = digit == kDigits - 1 ? 0 : ~0u << (shift + 8);
    for (std::int64_t v = threadIdx.x; v < row.vocabulary; v += kThreads) {
      const std::uint32_t key = key_of(row.logits[v]);
      if ((key & mask) != (found & mask)) continue;
      const Weight added = amount(row.logits[v]);
      if (added > 0) atomicAdd(&bins[key >> shift & (kBins - 1)], added);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Weight above = edge.above;
      int bin = kBins - 1;
      for (; bin > 0 && above + bins[bin] < reach; --bin) above += bins[bin];
      edge = {found | static_cast<std::uint32_t>(bin) << shift, above};
    }
    __syncthreads();
  }
  const Edge result = edge;
  __syncthreads();
  return result;
}

__device__ Weight block_total(Weight mine, Weight* shared) {
  __syncthreads();
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const Weight total = shared[0];
  __syncthreads();
  return total;
}

// Returns the sum over the threads before this one.
__device__ Weight before_of_block(Weight mine, Weight* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  Weight sum = 0;
  for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) sum += shared[i];
  __syncthreads();
  return sum;
}

// Says which ids are kept: those with a larger key than `key`, and all those with this key but the
// first `skipped` ones.
struct Kept {
  std::uint32_t key;
  Weight skipped;
};

__device__ Kept find_kept(const Row& row, const Sampling& sampling, Weight* shared) {
  Kept kept{key_of(kNoLogit) + 1, 0};
  if (sampling.top_k > 0 && sampling.top_k < row.vocabulary) {
    const Edge edge = find_edge(
        row, static_cast<Weight>(sampling.top_k), [](float) { return Weight{1}; }, shared);
    kept.key = max(kept.key, edge.key);
  }
  if (sampling.top_p < 1) {
    const std::uint32_t least = kept.key;
    const auto weight = [&](float logit) {
      return key_of(logit) >= least ? row.weight(logit) : Weight{0};
    };
    Weight mine = 0;
    for (std::int64_t v = threadIdx.x; v < row.vocabulary; v += kThreads)
      mine += weight(row.logits[v]);
    const Weight reach = weight_to_reach(sampling.top_p, block_total(mine, shared));
    const Edge edge = find_edge(row, reach, weight, shared);
    Weight equal = 0;
    float value = 0;
    for (std::int64_t v = threadIdx.x; v < row.vocabulary; v += kThreads) {
      if (key_of(row.logits[v]) == edge.key) ++equal;
    }
    const Weight count = block_total(equal, shared);
    value = __uint_as_float(edge.key & 0x80000000u ? edge.key ^ 0x80000000u : ~edge.key);
    const Weight each = row.weight(value), left = reach - edge.above,
                 needed = (left + each - 1) / each;
    kept = {edge.key, count - needed};
  }
  return kept;
}

// Draws an id by the threads of a block, each of which has a part of the vocabulary. Returns it to
// the thread in whose part it is, and −1 to the others.
__device__ std::int32_t draw(const Row& row, const Kept& kept, std::uint64_t bits, Weight* shared) {
  const std::int64_t begin = threadIdx.x * row.vocabulary / kThreads,
                     end = (threadIdx.x + 1) * row.vocabulary / kThreads;
  Weight equal = 0;
  for (std::int64_t v = begin; v < end; ++v) equal += key_of(row.logits[v]) == kept.key;
  const Weight first_rank = before_of_block(equal, shared);
  // Calls use(v, weight) for the ids of the part that are kept until it returns true.
  const auto each_kept = [&](const auto& use) {
    Weight rank = first_rank;
    for (std::int64_t v = begin; v < end; ++v) {
      const std::uint32_t key = key_of(row.logits[v]);
      if (key < kept.key || (key == kept.key && rank++ < kept.skipped)) continue;
      if (use(v, row.weight(row.logits[v]))) return;
    }
  };
  Weight mine = 0;
  each_kept([&](std::int64_t, Weight weight) {
    mine += weight;
    return false;
  });
  const Weight before = before_of_block(mine, shared), total = block_total(mine, shared);
  const Weight drawn = high_product(total, bits);
  std::int32_t id = -1;
  if (drawn < before || drawn >= before + mine) return id;
  Weight left = drawn - before;
  each_kept([&](std::int64_t v, Weight weight) {
    if (left >= weight) {
      left -= weight;
      return false;
    }
    id = static_cast<std::int32_t>(v);
    return true;
  });
  return id;
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                  Sampling sampling, StepRows rows, SearchState state, std::int64_t first_row,
                  RowCandidates out) {
  __shared__ Weight shared[kBins];
  __shared__ float partial[kThreads / kWarp];
  const std::int64_t row = first_row + blockIdx.x, slot = rows.slots[row];
  if (slot < 0 || state.done[slot]) return;
  logits += blockIdx.x * stride;
  float most = kNoLogit;
  bool overflow = false;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
    most = fmaxf(most, logits[v]);
    overflow |= isnan(logits[v]);
  }
  const Row of{logits, vocabulary, block_max(most, partial), sampling.temperature};
  overflow = __syncthreads_or(overflow);
  if (threadIdx.x == 0) out.values[row] = overflow ? NAN : kNoLogit, out.tokens[row] = 0;
  __syncthreads();
  if (overflow || !(of.max > kNoLogit)) return;
  const Kept kept = find_kept(of, sampling, shared);
  const DrawName name{state.draws[slot].line, state.draws[slot].draw,
                      state.length[slot] - (state.prefix ? state.prefix_tokens[slot] : 0)};
  const std::int32_t id = draw(of, kept, random_bits(sampling.seed, name), shared);
  if (id >= 0) out.values[row] = logits[id], out.tokens[row] = id;
}

}  // namespace

void sample_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                 const Sampling& sampling, const StepRows& step_rows, const SearchState& state,
                 std::int64_t first, std::int64_t rows, const RowCandidates& best,
                 cudaStream_t stream) {
  if (rows > 0)
    sample_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        logits, stride, vocabulary, sampling, step_rows, state, first, best);
}

}  // namespace xlate::cuda
