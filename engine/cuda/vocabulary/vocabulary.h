// The launchers that find each row's best tokens and their log-softmax over the vocabulary, either
// from logits in memory or in one kernel with the projection. Letters are those of
// engine/backend.h.
#pragma once

#include <cuda.h>

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// Holds what apply_row_rules reads beside the rules.
struct RowRules {
  StepRows rows;
  SearchState state;
  // [rows, SearchState::longest_before + longest]; scratch memory for the ids of the hypotheses.
  std::int32_t* ids;
};
/// Adds the bias of [V], unless it is null, to the first V logits of each of the rows, [rows,
/// stride], and bounds them: y becomes softcap · tanh(y / softcap).
void cap_logits(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
                float softcap, std::int64_t rows, cudaStream_t);
/// Writes the log-probability of id ids[i] in row i of the logits, [rows, stride], of which the
/// first V are valid, to out[i]. The bias of [V] is added first unless it is null.
void pick_log_probabilities(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                            const float* bias, const std::int32_t* ids, std::int64_t rows,
                            float* out, cudaStream_t);
/// Changes the logits of rows [first, first + rows), [rows, stride], into log-probabilities as the
/// row rules leave them. The bias of [V] is added first unless it is null. Rows of slots that are
/// done, and of groups without a slot, stay as they are.
void apply_row_rules(float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias,
                     const RulesView&, const RowRules&, std::int64_t first, std::int64_t rows,
                     cudaStream_t);

/// Finds the best `count` candidates of rows [first, first + rows). The logits of these rows are
/// [rows, stride], and the first V of each row are valid. The bias of [V] is added to them unless
/// it is null. If there are row rules, apply_row_rules has changed the logits, and `bias` is null.
void select_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary,
                 const float* bias, const RulesView&, std::int64_t first, std::int64_t rows,
                 const RowCandidates&, cudaStream_t);

/// Draws one token of each of rows [first, first + rows), with one beam, from log-probabilities
/// that apply_row_rules has left. The candidate of a row is the token with its log-probability, or
/// −∞ if no token may be chosen.
void sample_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary, const Sampling&,
                 const StepRows&, const SearchState&, std::int64_t first, std::int64_t rows,
                 const RowCandidates&, cudaStream_t);

/// The largest number of lists of a row that merge_rows can merge.
constexpr int kMostListSplits = 160;
/// Holds what has been found in the splits of each row's vocabulary.
struct RowPartials {
  // [R, sum_splits]. The pair (x, y) says that the exponentials of a split add up to y·2^x. It is
  // (−∞, 0) if they are all zero.
  const float2* sums;
  // sum_splits depends on the size of the vocabulary alone, because a row's sums are added in an
  // order that follows from it.
  int sum_splits;
  // [R, list_splits, count]. A list has the best tokens of a split in order, and −∞ behind them if
  // there are fewer than `count`. No token is in two lists of a row.
  const TokenValue* lists;
  // It is at most kMostListSplits. The result does not depend on the splits.
  int list_splits;
  int count;  // It is at least the number of candidates.
};
/// Merges the splits of each row into its candidates: the values are the logits less the
/// log-sum-exp. On compute capability 9.0 the kernel uses programmatic dependent launch. It may
/// start before the kernel in front of it has ended, if that one permits it, and waits for all its
/// work.
void merge_rows(const RowPartials&, std::int64_t rows, const RowCandidates&, cudaStream_t);

/// The operands of the kernel that multiplies rows with the vocabulary and finds their log-sum-exp
/// and best candidates, on compute capability 9.0 (project.cu).
struct VocabularyArgs {
  CUtensorMap hidden;  // [R, D] of T (products/tensor_map.h)
  CUtensorMap weight;  // [V, D] of T
  const float* bias;   // [V] or null
  std::int64_t rows, width, vocabulary;
  // It has vocabulary_scratch_bytes, aligned to 16 bytes, and is in use until the call's work has
  // ended.
  void* scratch;
};
/// Returns whether there is a kernel for these shapes. `capability` is 10·major + minor of the
/// device.
bool vocabulary_kernel_fits(int capability, std::int64_t width, std::int64_t vocabulary, int count);
/// Returns a number of bytes of scratch memory that is enough for any number of rows up to `rows`.
std::size_t vocabulary_scratch_bytes(std::int64_t rows, std::int64_t vocabulary, int count);
/// Finds the best candidates of the rows. Of the rules it applies never_chosen and renormalize. T
/// is __half or __nv_bfloat16. The candidates of a row have the same bits whatever the other rows
/// are.
template <class T>
void project_rows(const VocabularyArgs&, const RulesView&, const RowCandidates&, cudaStream_t);

}  // namespace xlate::cuda
