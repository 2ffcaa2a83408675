// Applies the row rules of search to logits in memory (docs/search.md), with a block for each row.
// The ids that a hypothesis has had are read from the search tree: the token at position t entered
// the network under the beam ancestor[t], whose last token it was.
#include "engine/cuda/vocabulary/row_sums.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

// Writes the ids that the decoder has had for a hypothesis: the start token and `length` generated
// tokens.
__device__ void list_ids(const RulesView& rules, const SearchState& state, std::int64_t slot,
                         int beam, std::int32_t length, std::int32_t* ids) {
  const std::int64_t beams = state.beams, first = slot * state.longest;
  for (std::int32_t t = threadIdx.x; t <= length; t += kRowThreads) {
    if (t == 0) {
      ids[t] = rules.start;
    } else if (t == length) {
      ids[t] = state.token[slot * beams + beam];
    } else {
      const int entered = state.ancestor[(first + t) * beams + beam];
      ids[t] = state.history[(first + t - 1) * beams + entered].token;
    }
  }
  __syncthreads();
}

// Subtracts the log-sum-exp, unless all logits are −∞.
__device__ void log_softmax(float* logits, std::int64_t vocabulary, float* shared) {
  RunningSum sum;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kRowThreads)
    if (logits[v] != kNoLogit) sum.add(logits[v]);
  const float log_sum = sum.block_log_sum(shared);
  if (log_sum == kNoLogit) return;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kRowThreads) logits[v] -= log_sum;
  __syncthreads();
}

// Penalises each id once. Where an id occurs several times, the thread of the first place does it.
__device__ void penalise(const std::int32_t* ids, std::int32_t count, float penalty,
                         float* logits) {
  for (std::int32_t i = threadIdx.x; i < count; i += kRowThreads) {
    bool first = true;
    for (std::int32_t j = 0; j < i && first; ++j) first = ids[j] != ids[i];
    if (!first) continue;
    const float value = logits[ids[i]];
    logits[ids[i]] = value < 0 ? value * penalty : value / penalty;
  }
  __syncthreads();
}

// Forbids the ids with which the last n − 1 ids would make an n-gram that `ids` has already.
__device__ void forbid_repeats(const std::int32_t* ids, std::int32_t count, std::int64_t n,
                               float* logits) {
  const std::int32_t* suffix = ids + (count - (n - 1));
  for (std::int64_t first = threadIdx.x; first + n <= count; first += kRowThreads) {
    bool same = true;
    for (std::int64_t i = 0; i < n - 1 && same; ++i) same = ids[first + i] == suffix[i];
    if (same) logits[ids[first + n - 1]] = kNoLogit;
  }
}

__device__ void forbid(const std::int32_t* list, int count, float* logits) {
  for (int i = threadIdx.x; i < count; i += kRowThreads) logits[list[i]] = kNoLogit;
}

__global__ void __launch_bounds__(kRowThreads)
    row_rules_kernel(float* all_logits, std::int64_t stride, std::int64_t vocabulary,
                     const float* bias, RulesView rules, RowRules row_rules,
                     std::int64_t first_row) {
  __shared__ float shared[kRowThreads / kWarp];
  const SearchState& state = row_rules.state;
  const std::int64_t row = first_row + blockIdx.x, slot = row_rules.rows.slots[row / rules.beams];
  if (slot < 0 || state.done[slot]) return;
  float* logits = all_logits + blockIdx.x * stride;
  std::int32_t* ids = row_rules.ids + blockIdx.x * state.longest;
  const std::int32_t length = state.length[slot];
  list_ids(rules, state, slot, static_cast<int>(row % rules.beams), length, ids);
  if (bias) {
    for (std::int64_t v = threadIdx.x; v < vocabulary; v += kRowThreads) logits[v] += bias[v];
  }
  __syncthreads();

  // The rules are applied to logits in greedy search and to log-probabilities in beam search.
  const bool greedy = rules.beams == 1;
  if (!greedy) log_softmax(logits, vocabulary, shared);
  if (rules.repetition_penalty != 1) penalise(ids, length + 1, rules.repetition_penalty, logits);
  if (rules.no_repeat_ngram > 0) forbid_repeats(ids, length + 1, rules.no_repeat_ngram, logits);
  if (length < rules.min_length) {
    forbid(rules.other_ends, rules.other_ends_count, logits);
    if (threadIdx.x == 0 && rules.end >= 0) logits[rules.end] = kNoLogit;
  }
  // Without renormalize the selection leaves out what is never chosen.
  if (rules.renormalize) forbid(rules.never_chosen, rules.never_chosen_count, logits);
  __syncthreads();
  if (greedy || rules.renormalize) log_softmax(logits, vocabulary, shared);
}

}  // namespace

void apply_row_rules(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
                     const RulesView& rules, const RowRules& row_rules, std::int64_t first,
                     std::int64_t rows, cudaStream_t stream) {
  if (rows > 0)
    row_rules_kernel<<<static_cast<unsigned>(rows), kRowThreads, 0, stream>>>(
        logits, stride, vocabulary, bias, rules, row_rules, first);
}

}  // namespace xlate::cuda
