// Tests random draws: their random numbers against the known answers of their authors, the ids that
// top-k and top-p keep against loops in double precision, and what each backend draws against the
// probabilities.
#include "engine/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/cpu/sampler.h"
#include "tests/decode_sentences.h"
#include "tests/late_backend.h"
#include "tests/table_model.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;

// These are test vectors of the Random123 library (philox4x32-10).
TEST(Sampling, RandomBitsAreThoseOfPhilox) {
  EXPECT_EQ(random_bits(0, {0, 0, 0}), 0x6627e8d5e169c58d);
  EXPECT_EQ(random_bits(0xffffffffffffffff, {-1, -1, -1}), 0x408f276d41c83b0e);
  // The counter is 243f6a88 85a308d3 13198a2e 03707344, and the key a4093822 299f31d0.
  EXPECT_EQ(random_bits(0x299f31d0a4093822,
                        {0x0370734413198a2e, static_cast<std::int32_t>(0x85a308d3), 0x243f6a88}),
            0xd16cfe0994fdcceb);
}

// Has the ids that are kept, and their probabilities after renormalization.
using Kept = std::map<std::int32_t, double>;

Kept expected_kept(const Sampling& sampling, const std::vector<float>& row) {
  std::vector<std::pair<double, std::int32_t>> items;
  for (std::size_t id = 0; id < row.size(); ++id) {
    if (std::isfinite(row[id]))
      items.emplace_back(static_cast<double>(row[id]), static_cast<std::int32_t>(id));
  }
  std::sort(items.rbegin(), items.rend());
  if (sampling.top_k > 0 && sampling.top_k < std::ssize(items)) {
    const double least = items[static_cast<std::size_t>(sampling.top_k) - 1].first;
    std::erase_if(items, [&](const auto& item) { return item.first < least; });
  }
  double sum = 0;
  for (auto& [value, id] : items) {
    value = std::exp(value / static_cast<double>(sampling.temperature));
    sum += value;
  }
  Kept kept;
  double reached = 0;
  for (const auto& [value, id] : items) {
    if (reached >= static_cast<double>(sampling.top_p) * sum) break;
    kept[id] = value;
    reached += value;
  }
  for (auto& [id, value] : kept) value /= reached;
  return kept;
}

Kept probabilities_of(const std::vector<cpu::WeightedId>& kept) {
  double sum = 0;
  for (const cpu::WeightedId& each : kept) sum += static_cast<double>(each.weight);
  Kept probabilities;
  for (const cpu::WeightedId& each : kept)
    probabilities[each.id] = static_cast<double>(each.weight) / sum;
  return probabilities;
}

// Returns logits, of which many are equal and some are −∞.
std::vector<float> random_row(Random& random, int vocabulary) {
  std::vector<float> row(static_cast<std::size_t>(vocabulary));
  for (float& logit : row) {
    logit = static_cast<float>(whole(random, -24, 8)) / 4;
    if (whole(random, 0, 9) == 0) logit = -INFINITY;
  }
  row[0] = 1;
  return row;
}

TEST(Sampling, WhatTopKAndTopPKeepIsThatOfTheLoops) {
  Random random(5);
  for (int i = 0; i < 2000; ++i) {
    const std::vector<float> row = random_row(random, whole(random, 1, 90));
    constexpr float kTemperatures[] = {0.1f, 0.7f, 1, 2.5f}, kPs[] = {1e-9f, 0.3f, 0.9f, 1};
    const Sampling sampling{kTemperatures[whole(random, 0, 3)], whole(random, 0, 40),
                            kPs[whole(random, 0, 3)]};
    const Kept expected = expected_kept(sampling, row),
               found = probabilities_of(cpu::kept_ids(sampling, row));
    // At the lowest temperature the worst ids have no weight.
    for (const auto& [id, probability] : expected) {
      if (probability < 1e-9) continue;
      ASSERT_TRUE(found.contains(id)) << "case " << i << ", id " << id;
      ASSERT_NEAR(found.at(id), probability, 1e-6) << "case " << i << ", id " << id;
    }
    for (const auto& [id, probability] : found)
      ASSERT_TRUE(expected.contains(id) || probability < 1e-9) << "case " << i << ", id " << id;
  }
}

class SamplingTest : public OnBackend {
 protected:
  // Draws the tokens of lines 0, 1, …, whose kinds are those of the table in turn.
  std::vector<Ids> draw(const Table& table, const SearchRules& rules, std::int64_t lines,
                        std::int64_t batch_tokens, std::int64_t tokens) {
    Lab lab(GetParam());
    TableModel model(lab, table);
    std::vector<Sentence> sentences;
    for (std::int64_t line = 0; line < lines; ++line)
      sentences.push_back({line, {static_cast<std::int32_t>(line % table.kinds)}});
    RunnerOptions options;
    options.rules = rules;
    options.batch_tokens = batch_tokens;
    options.longest_source = 1;
    options.max_length = tokens;
    Runner runner(*lab, model, options);
    std::vector<Ids> ids;
    for (const auto& hypotheses : decode_sentences(runner, std::move(sentences)))
      ids.push_back(hypotheses.at(0).ids);
    return ids;
  }
  static SearchRules rules_with(const Sampling& sampling, Ids never_chosen = {}) {
    return {.beams = 1, .never_chosen = std::move(never_chosen), .sampling = sampling};
  }

  Random random{17};
};
INSTANTIATE_TEST_SUITE_P(, SamplingTest, testing::ValuesIn(backends_and_late_ones()), backend_name);

// The frequencies are tested with a chi-square of which one in a million correct programs would
// have a larger one, by the approximation of Wilson and Hilferty (1931).
TEST_P(SamplingTest, FrequenciesAreTheProbabilities) {
  // The table model waits for the device in each of its steps.
  const std::int64_t lines = GetParam().cuda ? 2000 : 6000;
  for (const Sampling& sampling : {Sampling{1, 0, 1, 7}, Sampling{0.7f, 12, 1, 8},
                                   Sampling{1.5f, 0, 0.8f, 9}, Sampling{0.9f, 20, 0.9f, 10}}) {
    Table table(60);
    for (float& logit : table.logits) logit = static_cast<float>(whole(random, -12, 8)) / 4;
    const Ids never{3, 59};
    std::vector<float> row(table.row(0, 0, 0), table.row(0, 0, 0) + 60);
    for (const std::int32_t id : never) row[static_cast<std::size_t>(id)] = -INFINITY;
    const Kept expected = expected_kept(sampling, row);
    std::map<std::int32_t, double> counts;
    for (const Ids& ids : draw(table, rules_with(sampling, never), lines, 4000, 1))
      ++counts[ids.at(0)];
    double chi_square = 0, rest = static_cast<double>(lines);
    int cells = 0;
    for (const auto& [id, probability] : expected) {
      const double mean = probability * static_cast<double>(lines);
      if (mean < 5) continue;
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
      rest -= mean;
      ++cells;
    }
    for (const auto& [id, count] : counts) EXPECT_TRUE(expected.contains(id)) << "id " << id;
    ASSERT_GT(cells, 3);
    EXPECT_LT(rest, static_cast<double>(lines) * 0.1);
    const double freedom = cells, spread = 2.0 / (9 * freedom);
    EXPECT_LT(std::cbrt(chi_square / freedom), 1 - spread + 4.75 * std::sqrt(spread));
  }
}

// A row of a real vocabulary's size is drawn from as the CPU's sorting does, wherever the edges
// are.
TEST_P(SamplingTest, TheSameIdsAreDrawnOnAllBackends) {
  for (const int vocabulary : {2, 300, 2500}) {
    Table table(vocabulary, 1, 1);
    // The last token is always the start token here, so that one row of the table is enough.
    for (int kind = 0; kind < (vocabulary > 1000 ? 3 : 12); ++kind) {
      std::vector<float> row = random_row(random, vocabulary);
      for (float& logit : row) logit = std::max(logit, -30.0f);
      std::copy(row.begin(), row.end(), table.row(0, 0, 0));
      const Sampling sampling{0.8f, whole(random, 0, 1) ? whole(random, 1, vocabulary) : 0,
                              whole(random, 0, 1) ? 0.85f : 1.0f, static_cast<std::uint64_t>(kind)};
      constexpr std::int64_t kLines = 40;
      const auto found = draw(table, rules_with(sampling), kLines, 100, 1);
      int different = 0;
      for (std::int64_t line = 0; line < kLines; ++line)
        different += found[static_cast<std::size_t>(line)].at(0) !=
                     cpu::draw_id(sampling, row, {line, 0, 0}).value();
      EXPECT_LE(different, GetParam().cuda ? 1 : 0) << "vocabulary " << vocabulary;
    }
  }
}

TEST_P(SamplingTest, NothingButTheLineMatters) {
  Table table(30, 8, 3);
  for (float& logit : table.logits) logit = static_cast<float>(whole(random, -8, 8)) / 4;
  SearchRules rules = rules_with({1, 0, 0.95f, 3});
  rules.ends = {4};
  rules.min_length = 2;
  const auto expected = draw(table, rules, 200, 1, 8);
  for (const std::int64_t batch_tokens : {50, 1000})
    EXPECT_EQ(draw(table, rules, 200, batch_tokens, 8), expected);
  rules.sampling->seed = 4;
  EXPECT_NE(draw(table, rules, 200, 1000, 8), expected);
}

TEST_P(SamplingTest, OneBeamIsExpected) {
  SearchRules rules = rules_with({});
  rules.beams = 2;
  Lab lab(GetParam());
  expect_error([&] { Search(*lab, lab.queue(), rules, 1, 1); }, {"beam size is 2", "1"});
}

}  // namespace
}  // namespace xlate::test
