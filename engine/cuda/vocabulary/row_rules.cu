// Bounds logits in memory, picks log-probabilities of given ids, and applies the row rules of
// search (docs/search.md), with a block for each row. The ids that a hypothesis has had are read
// from the search tree: the token at position t entered the network under the beam ancestor[t],
// whose last token it was.
#include "engine/cuda/vocabulary/row_sums.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

// Writes the ids that the decoder has had for a hypothesis: those of the prompt, of which the start
// token is the last one or the only one, and `length` generated tokens. Returns their number.
__device__ std::int32_t list_ids(const SearchState& state, std::int64_t slot, int beam,
                                 std::int32_t length, std::int32_t* ids) {
  const std::int64_t beams = state.beams, first = slot * state.longest;
  const std::int32_t before = state.prompt ? state.tokens_before[slot] : 0;
  for (std::int32_t t = threadIdx.x; t < before; t += kRowThreads)
    ids[t] = state.prompt[slot * state.longest_before + t];
  ids += before;
  for (std::int32_t t = threadIdx.x; t <= length; t += kRowThreads) {
    if (t == 0) {
      ids[t] = state.start[slot];
    } else if (t == length) {
      ids[t] = state.token[slot * beams + beam];
    } else {
      const int entered = state.ancestor[(first + t) * beams + beam];
      ids[t] = state.history[(first + t - 1) * beams + entered].token;
    }
  }
  __syncthreads();
  return before + length + 1;
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
  std::int32_t* ids = row_rules.ids + blockIdx.x * (state.longest_before + state.longest);
  const std::int32_t length = state.length[slot],
                     count =
                         list_ids(state, slot, static_cast<int>(row % rules.beams), length, ids);
  if (bias) {
    for (std::int64_t v = threadIdx.x; v < vocabulary; v += kRowThreads) logits[v] += bias[v];
  }
  __syncthreads();

  // The rules are applied to logits in greedy search and to log-probabilities in beam search.
  const bool greedy = rules.beams == 1;
  if (!greedy) log_softmax(logits, vocabulary, shared);
  if (rules.repetition_penalty != 1) penalise(ids, count, rules.repetition_penalty, logits);
  if (rules.no_repeat_ngram > 0) forbid_repeats(ids, count, rules.no_repeat_ngram, logits);
  if (length - (state.prefix ? state.prefix_tokens[slot] : 0) < rules.min_length) {
    forbid(rules.other_ends, rules.other_ends_count, logits);
    if (threadIdx.x == 0 && rules.end >= 0) logits[rules.end] = kNoLogit;
  }
  // Without renormalize the selection leaves out what is never chosen.
  if (rules.renormalize) forbid(rules.never_chosen, rules.never_chosen_count, logits);
  __syncthreads();
  if (greedy || rules.renormalize) log_softmax(logits, vocabulary, shared);
}

__global__ void __launch_bounds__(kRowThreads)
    cap_kernel(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
               float softcap) {
  const std::int64_t v = static_cast<std::int64_t>(blockIdx.y) * kRowThreads + threadIdx.x;
  if (v >= vocabulary) return;
  float& logit = logits[blockIdx.x * stride + v];
  logit = softcap * tanhf((bias ? logit + bias[v] : logit) / softcap);
}

// A block computes one row.
__global__ void __launch_bounds__(kRowThreads)
    pick_kernel(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                const float* bias, const std::int32_t* ids, float* out) {
  __shared__ float shared[kRowThreads / kWarp];
  const std::int64_t row = blockIdx.x;
  logits += row * stride;
  const auto at = [&](std::int64_t v) { return bias ? logits[v] + bias[v] : logits[v]; };
  RunningSum sum;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kRowThreads) sum.add(at(v));
  const float log_sum = sum.block_log_sum(shared);
  if (threadIdx.x == 0) out[row] = at(ids[row]) - log_sum;
}

}  // namespace

void cap_logits(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
                float softcap, std::int64_t rows, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(rows), blocks_for(vocabulary, kRowThreads));
  if (rows > 0)
    cap_kernel<<<grid, kRowThreads, 0, stream>>>(logits, stride, vocabulary, bias, softcap);
}

void pick_log_probabilities(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                            const float* bias, const std::int32_t* ids, std::int64_t rows,
                            float* out, cudaStream_t stream) {
  if (rows > 0)
    pick_kernel<<<static_cast<unsigned>(rows), kRowThreads, 0, stream>>>(logits, stride, vocabulary,
                                                                         bias, ids, out);
}

void apply_row_rules(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
                     const RulesView& rules, const RowRules& row_rules, std::int64_t first,
                     std::int64_t rows, cudaStream_t stream) {
  if (rows > 0)
    row_rules_kernel<<<static_cast<unsigned>(rows), kRowThreads, 0, stream>>>(
        logits, stride, vocabulary, bias, rules, row_rules, first);
}

}  // namespace xlate::cuda
