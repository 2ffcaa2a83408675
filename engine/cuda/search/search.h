// The step of search, from each row's candidates on, and what begins and ends a sentence
// (docs/search.md).
#pragma once

#include "engine/cuda/views.h"

namespace xlate::cuda {

void start_slots(const RulesView&, const std::int32_t* slots, const std::int32_t* limits,
                 std::int64_t count, const SearchState&, cudaStream_t);
/// Candidates of each group's hypotheses, selection and bookkeeping (docs/search.md, steps 2 to 5).
void advance_slots(const RulesView&, const RowCandidates&, const StepRows&, const SearchState&,
                   cudaStream_t);
/// Copies what tracing needs of each slot to records of `stride` bytes: int32 count and length,
/// finished [K], history [length, K].
void collect_slots(const std::int32_t* slots, std::int64_t count, const SearchState&, void* records,
                   std::int64_t stride, cudaStream_t);

}  // namespace xlate::cuda
