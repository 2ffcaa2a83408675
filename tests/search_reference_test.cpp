// Compares search with exhaustive search, and with a second implementation on random tables
// (search_reference.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/search_reference.h"
#include "tests/table_model.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;

class SearchReferenceTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(, SearchReferenceTest, testing::ValuesIn(backends()), backend_name);

// The loop lists every sequence that ends and every sequence of full length. A beam that is wide
// enough for all of them finds them all, in order.
TEST_P(SearchReferenceTest, AWideBeamIsExhaustiveSearch) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Random random(seed);
    const int vocabulary = seed % 2 ? 3 : 4, limit = seed % 2 ? 6 : 4;
    Table table(vocabulary, limit);
    for (float& logit : table.logits) logit = uniform(random, -3, 3);
    table.round_to(lab.type());
    SearchRules rules{.beams = 200,
                      .length_penalty = 0.5f * static_cast<float>(seed % 5),
                      .start = 1,
                      .ends = {0},
                      .never_chosen = {}};
    rules.early_stopping = static_cast<EarlyStopping>(seed % 3);
    if (seed % 4 == 3) rules.forced_end = 0;
    const ReferenceSearch model(table, rules, limit, 0);
    std::vector<std::pair<double, Ids>> all;
    const std::function<void(Ids, double)> grow = [&](Ids ids, double sum) {
      const int n = static_cast<int>(ids.size());
      const auto row = model.log_probabilities(ids);
      for (int token = 0; token < vocabulary; ++token) {
        if (!std::isfinite(row[static_cast<std::size_t>(token)])) continue;
        Ids next = ids;
        const double total = sum + row[static_cast<std::size_t>(token)];
        if (!rules.is_end(token)) next.push_back(token);
        if (rules.is_end(token) || n + 1 == limit)
          all.push_back({total / std::pow(n + 1, rules.length_penalty), next});
        else
          grow(next, total);
      }
    };
    grow({}, 0);
    std::sort(all.begin(), all.end(),
              [](const auto& l, const auto& r) { return l.first > r.first; });
    const Outcome outcome = decode_alone(lab, table, rules, limit);
    ASSERT_EQ(outcome.hypotheses.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_NEAR(outcome.hypotheses[i].score, all[i].first, 1e-5);
      const bool near_tie = (i > 0 && all[i - 1].first - all[i].first < 1e-5) ||
                            (i + 1 < all.size() && all[i].first - all[i + 1].first < 1e-5);
      if (!near_tie) {
        EXPECT_EQ(outcome.hypotheses[i].ids, all[i].second) << "seed " << seed << ", place " << i;
      }
    }
  }
}

struct RandomCase {
  Table table;
  SearchRules rules;
  int limit;
};

RandomCase random_case(unsigned seed, bool with_ties) {
  Random random(seed);
  const int vocabulary = whole(random, 3, 40), limit = whole(random, 1, 12);
  Table table(vocabulary, with_ties ? 1 : limit);
  constexpr float kPenalties[] = {0, 0.6f, 1, 2, -0.5f};
  SearchRules rules{.beams = whole(random, 1, 9),
                    .length_penalty = kPenalties[whole(random, 0, 4)],
                    .early_stopping = static_cast<EarlyStopping>(whole(random, 0, 2)),
                    .start = whole(random, 0, vocabulary - 1),
                    .ends = {whole(random, 0, vocabulary - 1)},
                    .never_chosen = {}};
  if (whole(random, 0, 3) == 0)
    rules.forced_end = whole(random, 0, 3) ? rules.ends[0] : whole(random, 0, vocabulary - 1);
  if (whole(random, 0, 3) == 0) rules.forced_first = whole(random, 0, vocabulary - 1);
  for (int id = 0; id + 2 < vocabulary && whole(random, 0, 2) == 0; ++id)
    rules.never_chosen.push_back(whole(random, 0, vocabulary - 3));
  rules.renormalize = !with_ties && whole(random, 0, 2) == 0;
  const float end_bonus = uniform(random, -2, 3);
  for (int place = 0; place < table.places(); ++place) {
    float* row = table.logits.data() + place * vocabulary;
    // One logit is 0 and the others are −40 to −44, so all sums are exact.
    if (with_ties) {
      for (int token = 0; token < vocabulary; ++token)
        row[token] = static_cast<float>(-whole(random, 40, 44));
      row[whole(random, 0, vocabulary - 1)] = 0;
    } else {
      for (int token = 0; token < vocabulary; ++token)
        row[token] = uniform(random, -3, 3) + (rules.is_end(token) ? end_bonus : 0);
    }
  }
  return {std::move(table), std::move(rules), limit};
}

// Gives a case some of the row rules, and up to three more end tokens or none at all. With ties the
// penalty is a power of two, so that sums stay exact.
void add_row_rules(RandomCase& test, unsigned seed, bool with_ties) {
  Random random(seed + 1000);
  SearchRules& rules = test.rules;
  constexpr float kPenalties[] = {1.3f, 0.8f, 2, 0.5f};
  if (whole(random, 0, 1))
    rules.repetition_penalty = kPenalties[whole(random, with_ties ? 2 : 0, 3)];
  if (whole(random, 0, 1)) rules.no_repeat_ngram = whole(random, 1, 4);
  if (whole(random, 0, 1)) rules.min_length = whole(random, 1, 14);
  for (int more = whole(random, 0, 3); more > 0; --more) {
    const int end = whole(random, 0, test.table.vocabulary - 1);
    if (!rules.is_end(end)) rules.ends.push_back(end);
  }
  if (whole(random, 0, 7) == 0) rules.ends.clear();
}

// Makes several groups of a case's beams, where these can be divided. With ties the diversity is a
// whole number, so that sums stay exact.
void add_groups(RandomCase& test, unsigned seed, bool with_ties) {
  Random random(seed + 3000);
  SearchRules& rules = test.rules;
  rules.beams = whole(random, 1, 3) * whole(random, 2, 4);
  do rules.beam_groups = whole(random, 2, rules.beams);
  while (rules.beams % rules.beam_groups != 0);
  rules.diversity = with_ties ? static_cast<float>(whole(random, 1, 45)) : uniform(random, 0.1f, 4);
}

std::string text_of(const std::vector<Hypothesis>& hypotheses) {
  std::string text;
  for (const Hypothesis& hypothesis : hypotheses) {
    text += fmt::format("\n  score {:.9g}, sum {:.9g}, length {}:", hypothesis.score,
                        hypothesis.sum, hypothesis.length);
    for (const std::int32_t id : hypothesis.ids) text += fmt::format(" {}", id);
  }
  return text;
}

bool same(const Outcome& found, const ReferenceResult& expected) {
  if (found.steps != expected.steps || found.hypotheses.size() != expected.hypotheses.size())
    return false;
  for (std::size_t i = 0; i < found.hypotheses.size(); ++i) {
    const Hypothesis &f = found.hypotheses[i], &e = expected.hypotheses[i];
    if (f.ids != e.ids || f.length != e.length || f.ended != e.ended) return false;
    if (std::fabs(f.score - e.score) > 1e-4 || std::fabs(f.sum - e.sum) > 1e-4) return false;
  }
  return true;
}

// Returns given tokens of which a target of the case may begin. The limit leaves room for one more.
std::vector<std::int32_t> random_prefix(const RandomCase& test, unsigned seed) {
  Random random(seed + 2000);
  std::vector<std::int32_t> prefix(
      static_cast<std::size_t>(whole(random, 0, std::min(4, test.limit - 1))));
  for (std::int32_t& id : prefix) id = whole(random, 0, test.table.vocabulary - 1);
  return prefix;
}

void compare_random_cases(Lab& lab, double decidable, bool with_ties, bool with_row_rules = false,
                          bool with_prefix = false, bool with_groups = false) {
  int compared = 0;
  constexpr int kCases = 400;
  for (unsigned seed = 0; seed < kCases; ++seed) {
    RandomCase test = random_case(seed, with_ties);
    if (with_row_rules) add_row_rules(test, seed, with_ties);
    if (with_groups) add_groups(test, seed, with_ties);
    test.table.round_to(lab.type());
    const auto prefix = with_prefix ? random_prefix(test, seed) : std::vector<std::int32_t>();
    const ReferenceResult expected =
        ReferenceSearch(test.table, test.rules, test.limit, 0, prefix).run();
    if (!with_ties && expected.margin < decidable) continue;
    ++compared;
    const Outcome found = decode_alone(lab, test.table, test.rules, test.limit, 0, prefix);
    lab.clear();
    ASSERT_TRUE(same(found, expected))
        << "seed " << seed << ", beams " << test.rules.beams << ", margin " << expected.margin
        << "\nfound after " << found.steps << " steps" << text_of(found.hypotheses)
        << "\nexpected after " << expected.steps << " steps" << text_of(expected.hypotheses);
  }
  EXPECT_GT(compared, kCases * 9 / 10);
}

TEST_P(SearchReferenceTest, RandomTablesAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), false);
}

TEST_P(SearchReferenceTest, RandomTiesAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), true);
}

TEST_P(SearchReferenceTest, RandomTablesAndRowRulesAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), false, true);
}

TEST_P(SearchReferenceTest, RandomTiesAndRowRulesAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), true, true);
}

TEST_P(SearchReferenceTest, TargetsThatBeginWithGivenTokensAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), false, false, true);
  compare_random_cases(lab, decidable(GetParam()), true, true, true);
}

TEST_P(SearchReferenceTest, GroupsOfBeamsAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), false, false, false, true);
  compare_random_cases(lab, decidable(GetParam()), true, false, false, true);
}

TEST_P(SearchReferenceTest, GroupsOfBeamsAndOtherRulesAgreeWithTheReference) {
  compare_random_cases(lab, decidable(GetParam()), false, true, true, true);
  compare_random_cases(lab, decidable(GetParam()), true, true, true, true);
}

}  // namespace
}  // namespace xlate::test
