// Declares the row rules of search (docs/search.md): minimum length, repeated n-grams and the
// repetition penalty, which change a row by the ids that its hypothesis has had.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/search_state.h"

namespace xlate::cpu {

/// The vocabulary is scanned in chunks of this many ids. Sums are formed for each chunk and added
/// in the order of the chunks, so that they do not depend on the number of threads or rows.
inline constexpr std::int64_t kVocabularyChunk = 512;

/// Changes the logits [V] of a row into log-probabilities as the row rules leave them. They are −∞
/// for ids that may not be chosen. `ids` are all ids that the decoder has had for the hypothesis,
/// of which the last `generated` ones were generated.
void apply_row_rules(const SearchRules&, const std::vector<std::int32_t>& ids,
                     std::int32_t generated, std::span<float> row);

}  // namespace xlate::cpu
