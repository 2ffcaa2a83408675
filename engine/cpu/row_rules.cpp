// Applies the row rules of search in the order of Hugging Face's generate.
#include "engine/cpu/row_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

void forbid(std::span<float> row, std::int32_t id) {
  row[static_cast<std::size_t>(id)] = kForbidden;
}

// Subtracts the log-sum-exp of the row, unless all values are −∞.
void log_softmax(std::span<float> row) {
  const auto n = static_cast<std::int64_t>(row.size());
  const auto sum_of = [&](std::int64_t first) {
    return sum_logits(row.data() + first, std::min(kVocabularyChunk, n - first));
  };
  const float max = *std::max_element(row.begin(), row.end());
  if (!(max > kForbidden)) return;
  float sum = 0;
  for (std::int64_t first = 0; first < n; first += kVocabularyChunk) {
    const MaxSum chunk = sum_of(first);
    sum += chunk.sum * std::exp(chunk.max - max);
  }
  const float log_sum = max + std::log(sum);
  for (float& value : row) value -= log_sum;
}

// Penalises each id once, however often the hypothesis has had it (Keskar et al. 2019).
void penalise(std::vector<std::int32_t> ids, float penalty, std::span<float> row) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const std::int32_t id : ids) {
    float& value = row[static_cast<std::size_t>(id)];
    value = value < 0 ? value * penalty : value / penalty;
  }
}

// Forbids the ids with which the last n − 1 ids would make an n-gram that `ids` has already.
void forbid_repeats(const std::vector<std::int32_t>& ids, std::int64_t n, std::span<float> row) {
  const auto suffix = ids.end() - std::min(n - 1, std::ssize(ids));
  for (std::int64_t first = 0; first + n <= std::ssize(ids); ++first) {
    if (std::equal(suffix, ids.end(), ids.begin() + first))
      forbid(row, ids[static_cast<std::size_t>(first + n - 1)]);
  }
}

void forbid_never_chosen(const SearchRules& rules, std::span<float> row) {
  for (const std::int32_t id : rules.never_chosen) forbid(row, id);
}

}  // namespace

void apply_row_rules(const SearchRules& rules, const std::vector<std::int32_t>& ids,
                     std::int32_t generated, std::span<float> row) {
  // Hugging Face's generate gives the rules logits in greedy search and log-probabilities in beam
  // search.
  const bool greedy = rules.beams == 1;
  if (!greedy) log_softmax(row);
  if (rules.repetition_penalty != 1) penalise(ids, rules.repetition_penalty, row);
  if (rules.no_repeat_ngram > 0) forbid_repeats(ids, rules.no_repeat_ngram, row);
  if (generated < rules.min_length) {
    for (const std::int32_t end : rules.ends) forbid(row, end);
  }
  const bool renormalize = rules.renormalize || rules.sampling;
  if (renormalize) forbid_never_chosen(rules, row);
  if (greedy || renormalize) log_softmax(row);
  forbid_never_chosen(rules, row);
}

}  // namespace xlate::cpu
