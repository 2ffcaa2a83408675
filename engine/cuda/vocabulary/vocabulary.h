// Log-softmax over the vocabulary and each row's best candidates: of logits in memory, or with the
// projection in one kernel.
#pragma once

#include <cuda.h>

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// Log-softmax and the best `count` of rows [first, first + rows): logits [rows, stride], V of them
/// valid; bias may be null.
void select_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                 const float* bias, const RulesView&, std::int64_t first, std::int64_t rows,
                 const RowCandidates&, cudaStream_t);

constexpr int kMostListSplits = 160;
/// Rows whose vocabulary was gone through in parts.
struct RowPartials {
  const float2*
      sums;  // [R, sum_splits] (x, y): y·2^x is the sum of a part's exponentials; (−∞, 0) of none
  int sum_splits;           // always the same for a vocabulary: they are added in their order
  const TokenValue* lists;  // [R, list_splits, count] each part's best, in order, no token in two;
                            // −∞ where there are fewer
  int list_splits;  // at most kMostListSplits, cut as it suits: the best of all do not depend on it
  int count;        // at least that of the candidates
};
/// Makes them one: values less the log-sum. On compute capability 9.0 it may be launched before the
/// kernel in front of it has ended, where that kernel says so; it waits for all of that kernel's
/// work.
void merge_rows(const RowPartials&, std::int64_t rows, const RowCandidates&, cudaStream_t);

/// The vocabulary product of decoding rows with its log-sum and best candidates, on compute
/// capability 9.0 (project.cu).
struct VocabularyArgs {
  CUtensorMap hidden;  // [R, D] of T (products/tensor_map.h)
  CUtensorMap weight;  // [V, D] of T
  const float* bias;   // [V] or null
  std::int64_t rows, width, vocabulary;
  void* scratch;  // vocabulary_scratch_bytes, aligned to 16; in use until the call's work has ended
};
/// Whether there is a kernel for it; `capability` is 10·major + minor of the device.
bool vocabulary_kernel_fits(int capability, std::int64_t width, std::int64_t vocabulary, int count);
/// Enough for so many rows, or fewer.
std::size_t vocabulary_scratch_bytes(std::int64_t rows, std::int64_t vocabulary, int count);
/// It takes never_chosen and renormalize of the rules. T is __half or __nv_bfloat16. A row's
/// candidates have the same bits whatever the other rows.
template <class T>
void project_rows(const VocabularyArgs&, const RulesView&, const RowCandidates&, cudaStream_t);

}  // namespace xlate::cuda
