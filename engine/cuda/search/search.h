// Declares the step of search, from the candidates of each row on, and what begins and ends a
// sentence (docs/search.md).
#pragma once

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// Makes the slot of each of the `count` starts hold a new sentence.
void start_slots(const RulesView&, const SlotStart* starts, std::int64_t count, const SearchState&,
                 cudaStream_t);
/// Ranks the candidates of each group's hypotheses, selects the live and finished ones, and updates
/// the slot's state (docs/search.md, steps 2 to 5).
void advance_slots(const RulesView&, const RowCandidates&, const StepRows&, const SearchState&,
                   cudaStream_t);
/// Does the same where there are several groups of beams, one group after another.
void advance_groups(const RulesView&, const RowCandidates&, const StepRows&, const SearchState&,
                    cudaStream_t);
/// Copies what tracing back needs of each slot to a record of `stride` bytes (SearchRecord): the
/// finished count and the length as int32, finished [K], and history [length − 1, K]. Of `finished`
/// it copies only the entries that are in use.
void collect_slots(const std::int32_t* slots, std::int64_t count, const SearchState&, void* records,
                   std::int64_t stride, cudaStream_t);

}  // namespace xlate::cuda
