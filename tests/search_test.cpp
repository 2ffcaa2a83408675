// Tests the rules of docs/search.md with a table as the model. Each rule is worked out by hand.
// search_reference_test.cpp compares all of them with a second implementation.
#include <gtest/gtest.h>

#include "tests/late_backend.h"
#include "tests/search_reference.h"
#include "tests/table_model.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;

// The cases that are worked out by hand use these tokens.
constexpr int kEnd = 0, a = 1, b = 2, c = 3, d = 4, x = 5, kStart = 6, kLetters = 7;

class SearchTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
  // This is the allowed error of sums of a few log-probabilities that are given in decimals. It
  // covers their rounding and the exponential of a GPU.
  const double near =
      GetParam().cuda
          ? 4e-6 + (GetParam().type == DType::kFloat32 ? 0 : 8 * unit_roundoff(GetParam().type))
          : 1e-6;

  Outcome decode(Table table, const SearchRules& rules, std::int32_t limit, int kind = 0) {
    table.round_to(lab.type());
    return decode_alone(lab, table, rules, limit, kind);
  }
};
INSTANTIATE_TEST_SUITE_P(, SearchTest, testing::ValuesIn(backends()), backend_name);

// Returns a table of logits that are whole numbers. One logit of each row is 0 and the others are
// −40 or less; those that are not given are −60. Log-softmax in float32 does not change such
// values, so sums are exact and equal sums compare equal.
Table whole_numbers(std::initializer_list<std::pair<int, std::map<int, int>>> rows) {
  Table table(kLetters);
  for (int last = 0; last < kLetters; ++last) std::fill_n(table.row(0, 0, last), kLetters, -60.0f);
  for (const auto& [last, next] : rows) {
    for (const auto& [token, value] : next)
      table.row(0, 0, last)[token] = static_cast<float>(value);
  }
  return table;
}

// Returns a table of probabilities. A token that is not given has a logit of −60.
Table probabilities(std::initializer_list<std::pair<int, std::map<int, double>>> rows) {
  Table table = whole_numbers({});
  for (const auto& [last, next] : rows) {
    for (const auto& [token, value] : next)
      table.row(0, 0, last)[token] = static_cast<float>(std::log(value));
  }
  return table;
}

SearchRules rules_of(int beams, float penalty, EarlyStopping stopping = EarlyStopping::kFalse) {
  return {.beams = beams,
          .length_penalty = penalty,
          .early_stopping = stopping,
          .start = kStart,
          .ends = {kEnd},
          .never_chosen = {}};
}

std::vector<Ids> ids_of(const Outcome& outcome) {
  std::vector<Ids> ids;
  for (const Hypothesis& hypothesis : outcome.hypotheses) ids.push_back(hypothesis.ids);
  return ids;
}

std::vector<float> scores_of(const Outcome& outcome) {
  std::vector<float> scores;
  for (const Hypothesis& hypothesis : outcome.hypotheses) scores.push_back(hypothesis.score);
  return scores;
}

TEST_P(SearchTest, StartsAtTheStartTokenAndEndsAtTheEndToken) {
  const Table table =
      whole_numbers({{kStart, {{b, 0}}}, {b, {{a, 0}}}, {a, {{kEnd, 0}}}, {kEnd, {{c, 0}}}});
  for (const int beams : {1, 2}) {
    const Outcome outcome = decode(table, rules_of(beams, 0, EarlyStopping::kFalse), 10);
    ASSERT_FALSE(outcome.hypotheses.empty());
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{b, a}));
    EXPECT_TRUE(outcome.hypotheses[0].ended);
    EXPECT_EQ(outcome.hypotheses[0].length, 3);
    EXPECT_EQ(outcome.hypotheses[0].score, 0);
  }
}

TEST_P(SearchTest, LengthPenaltyCountsTheEndToken) {
  const Table table =
      probabilities({{kStart, {{a, .6}, {b, .4}}}, {a, {{kEnd, .7}, {b, .3}}}, {b, {{kEnd, 1}}}});
  for (const int beams : {1, 2}) {
    for (const float penalty : {0.0f, 0.6f, 1.0f, 2.0f, -1.0f}) {
      const Hypothesis best = decode(table, rules_of(beams, penalty), 5).hypotheses.at(0);
      EXPECT_EQ(best.ids, (Ids{a}));
      EXPECT_EQ(best.length, 2);
      EXPECT_NEAR(best.sum, std::log(.42), near);
      EXPECT_NEAR(best.score, std::log(.42) / std::pow(2, penalty), near);
    }
  }
}

TEST_P(SearchTest, GreedyTakesTheSmallerIdOfEquals) {
  const Table table = whole_numbers(
      {{kStart, {{c, 0}, {b, 0}, {d, 0}}}, {b, {{kEnd, 0}}}, {c, {{kEnd, 0}}}, {d, {{kEnd, 0}}}});
  EXPECT_EQ(ids_of(decode(table, rules_of(1, 1), 5)), (std::vector<Ids>{{b}}));
}

TEST_P(SearchTest, GreedyIsCutAtTheLimit) {
  const Table table = probabilities({{kStart, {{a, 1}}}, {a, {{a, .9}, {kEnd, .1}}}});
  const Outcome outcome = decode(table, rules_of(1, 1), 4);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, a, a, a}}));
  EXPECT_FALSE(outcome.hypotheses[0].ended);
  EXPECT_EQ(outcome.hypotheses[0].length, 4);
  EXPECT_EQ(outcome.steps, 4);
  EXPECT_NEAR(outcome.hypotheses[0].score, 3 * std::log(.9) / 4, near);
}

TEST_P(SearchTest, AForcedEndIsTheOnlyChoiceAtTheLimitAndAddsNothing) {
  const Table table =
      probabilities({{kStart, {{a, .8}, {b, .2}}}, {a, {{a, .9}, {b, .1}}}, {b, {{a, 1}}}});
  for (const int beams : {1, 2, 3}) {
    SearchRules rules = rules_of(beams, 1);
    rules.forced_end = kEnd;
    const Outcome outcome = decode(table, rules, 3);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{a, a}));
    EXPECT_TRUE(outcome.hypotheses[0].ended);
    EXPECT_EQ(outcome.hypotheses[0].length, 3);
    EXPECT_NEAR(outcome.hypotheses[0].sum, std::log(.8 * .9), near);
    EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.8 * .9) / 3, near);
    if (beams == 2) {
      EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, a}, {b, a}}));
    }
  }
}

TEST_P(SearchTest, AForcedFirstTokenIsTheOnlyChoiceCountsAndAddsNothing) {
  const Table table = probabilities({{kStart, {{a, 1}}},
                                     {a, {{kEnd, 1}}},
                                     {x, {{b, .5}, {c, .5}}},
                                     {b, {{kEnd, 1}}},
                                     {c, {{kEnd, 1}}}});
  for (const int beams : {1, 2}) {
    SearchRules rules = rules_of(beams, 1);
    rules.forced_first = x;
    const Outcome outcome = decode(table, rules, 3);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{x, b}));
    EXPECT_EQ(outcome.hypotheses[0].length, 3);
    EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.5) / 3, near);
    if (beams == 2) {
      EXPECT_EQ(ids_of(outcome)[1], (Ids{x, c}));
    }
    // The forced token counts towards the limit. At a limit of one token the forced end wins.
    EXPECT_EQ(decode(table, rules, 1).hypotheses[0].ids, (Ids{x}));
    rules.forced_end = kEnd;
    EXPECT_EQ(decode(table, rules, 1).hypotheses[0].ids, (Ids{}));
  }
}

TEST_P(SearchTest, WhatIsNeverChosenKeepsItsProbability) {
  const Table table = probabilities({{kStart, {{a, .5}, {b, .3}, {c, .2}}},
                                     {a, {{kEnd, 1}}},
                                     {b, {{kEnd, 1}}},
                                     {c, {{kEnd, 1}}}});
  for (const int beams : {1, 2}) {
    SearchRules rules = rules_of(beams, 0);
    rules.never_chosen = {a};
    Outcome outcome = decode(table, rules, 5);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{b}));
    EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.3), near);
    rules.renormalize = true;
    outcome = decode(table, rules, 5);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{b}));
    EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.3 / .5), near);
  }
}

TEST_P(SearchTest, AMinimumLengthForbidsTheEndToken) {
  const Table table = probabilities(
      {{kStart, {{kEnd, .6}, {a, .3}, {b, .1}}}, {a, {{kEnd, .6}, {a, .4}}}, {b, {{kEnd, 1}}}});
  for (const int beams : {1, 2}) {
    SearchRules rules = rules_of(beams, 0);
    rules.min_length = 2;
    const Outcome outcome = decode(table, rules, 6);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{a, a}));
    EXPECT_EQ(outcome.hypotheses[0].length, 3);
    // Greedy search gives the end token's probability to the others, as generate does.
    EXPECT_NEAR(outcome.hypotheses[0].sum,
                beams == 1 ? std::log(.3 / .4 * .6) : std::log(.3 * .4 * .6), near);
    rules.min_length = 9;
    EXPECT_EQ(decode(table, rules, 2).hypotheses[0].ids, (Ids{a, a}));
    EXPECT_FALSE(decode(table, rules, 2).hypotheses[0].ended);
    // A forced end wins.
    rules.forced_end = kEnd;
    EXPECT_EQ(decode(table, rules, 2).hypotheses[0].ids, (Ids{a}));
    EXPECT_TRUE(decode(table, rules, 2).hypotheses[0].ended);
  }
}

TEST_P(SearchTest, NoNgramIsRepeated) {
  const Table table = probabilities(
      {{kStart, {{a, 1}}}, {a, {{b, .8}, {d, .2}}}, {b, {{a, .9}, {kEnd, .1}}}, {d, {{kEnd, 1}}}});
  SearchRules rules = rules_of(1, 0);
  rules.no_repeat_ngram = 2;
  // Behind a, b, a the token b would repeat a pair.
  const Outcome greedy = decode(table, rules, 9);
  EXPECT_EQ(ids_of(greedy), (std::vector<Ids>{{a, b, a, d}}));
  EXPECT_NEAR(greedy.hypotheses[0].sum, std::log(.8 * .9), near);
  rules.beams = 3;
  const Outcome beam = decode(table, rules, 9);
  EXPECT_EQ(ids_of(beam), (std::vector<Ids>{{a, d}, {a, b, a, d}, {a, b}}));
  EXPECT_NEAR(beam.hypotheses[1].sum, std::log(.8 * .9 * .2), near);
}

// The start token of some models is their end token. The rules see it.
TEST_P(SearchTest, RowRulesSeeTheStartToken) {
  const Table table = probabilities(
      {{kEnd, {{a, 1}}}, {a, {{kEnd, .9}, {b, .1}}}, {b, {{kEnd, .6}, {c, .4}}}, {c, {{d, 1}}}});
  for (const int beams : {1, 2}) {
    SearchRules rules = rules_of(beams, 0);
    rules.start = kEnd;
    rules.no_repeat_ngram = 1;
    const Outcome outcome = decode(table, rules, 3);
    EXPECT_EQ(outcome.hypotheses[0].ids, (Ids{a, b, c}));
    EXPECT_FALSE(outcome.hypotheses[0].ended);
  }
}

TEST_P(SearchTest, AGreedyPenaltyIsOnLogits) {
  Table table =
      whole_numbers({{kStart, {{a, 4}}}, {a, {{a, 4}, {b, 3}, {kEnd, 1}}}, {c, {{kEnd, 0}}}});
  table.row(0, 0, b)[b] = -1, table.row(0, 0, b)[c] = -1.5f;
  SearchRules rules = rules_of(1, 0);
  rules.repetition_penalty = 2;
  const Outcome outcome = decode(table, rules, 9);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, b, c}}));
  const double second = 3 - std::log(std::exp(2.) + std::exp(3.) + std::exp(1.)),
               third = -1.5 - std::log(std::exp(-2.) + std::exp(-1.5));
  EXPECT_NEAR(outcome.hypotheses[0].sum, second + third, near);
}

TEST_P(SearchTest, APenaltyOfBeamsIsOnLogProbabilitiesAndOnceForEachId) {
  const Table table =
      probabilities({{kStart, {{a, 1}}}, {a, {{a, .5}, {b, .3}, {kEnd, .2}}}, {b, {{kEnd, 1}}}});
  SearchRules rules = rules_of(2, 0);
  rules.repetition_penalty = 2;
  const Outcome outcome = decode(table, rules, 9);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, b}, {a, a, b}}));
  EXPECT_NEAR(outcome.hypotheses[0].sum, std::log(.3), near);
  EXPECT_NEAR(outcome.hypotheses[1].sum, std::log(.25 * .3), near);
}

TEST_P(SearchTest, SeveralEndTokens) {
  const std::map<int, double> next{{kEnd, .4}, {d, .35}, {c, .25}};
  const Table table =
      probabilities({{kStart, {{a, .5}, {b, .5}}}, {a, next}, {b, next}, {c, {{d, 1}}}});
  SearchRules rules = rules_of(2, 2, EarlyStopping::kNever);
  rules.ends = {kEnd, d};
  // Four candidates of the second step end. The fifth and the sixth stay live and win later.
  const Outcome outcome = decode(table, rules, 9);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, c}, {b, c}}));
  EXPECT_TRUE(outcome.hypotheses[0].ended);
  EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.125) / 9, near);
  rules.beams = 1;
  rules.never_chosen = {kEnd};
  EXPECT_EQ(ids_of(decode(table, rules, 9)), (std::vector<Ids>{{a}}));
  // A minimum length forbids all of them.
  rules.never_chosen = {};
  rules.min_length = 2;
  EXPECT_EQ(ids_of(decode(table, rules, 9)), (std::vector<Ids>{{a, c}}));
  rules.ends.assign(kMaxEnds + 1, kEnd);
  expect_error([&] { Search(*lab, lab.queue(), rules, 1, 4); }, {"9 end tokens", "at most 8"});
}

TEST_P(SearchTest, EndsOnlyAmongTheFirstK) {
  // After the first step a has .5, b has .3 and the end token has .15. With two beams the end token
  // is third, so the hypothesis is lost, although no hypothesis that ends later is better.
  const std::map<int, double> flat{{kEnd, .26}, {a, .25}, {b, .25}, {c, .24}};
  const Table third =
      probabilities({{kStart, {{a, .5}, {b, .3}, {kEnd, .15}, {c, .05}}}, {a, flat}, {b, flat}});
  EXPECT_EQ(ids_of(decode(third, rules_of(2, 0), 2)), (std::vector<Ids>{{a}, {a, a}}));
  // In this table the end token is second.
  const Table second =
      probabilities({{kStart, {{a, .5}, {b, .15}, {kEnd, .3}, {c, .05}}}, {a, flat}, {b, flat}});
  const Outcome outcome = decode(second, rules_of(2, 0), 2);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{}, {a}}));
  EXPECT_NEAR(outcome.hypotheses[0].score, std::log(.3), near);
  // Two beams go on with the candidates that do not end, which are a and b.
  const Table lone =
      probabilities({{kStart, {{a, .5}, {kEnd, .3}, {b, .2}}}, {a, {{c, 1}}}, {b, {{d, 1}}}});
  EXPECT_EQ(ids_of(decode(lone, rules_of(3, 0), 2)), (std::vector<Ids>{{a, c}, {}, {b, d}}));
}

TEST_P(SearchTest, EveryCandidateCountsAtTheLimit) {
  const Table table = probabilities(
      {{kStart, {{a, .7}, {b, .3}}}, {a, {{a, .6}, {kEnd, .4}}}, {b, {{b, .9}, {a, .1}}}});
  const Outcome outcome = decode(table, rules_of(3, 1), 2);
  EXPECT_EQ(ids_of(outcome), (std::vector<Ids>{{a, a}, {a}, {b, b}}));
  EXPECT_FALSE(outcome.hypotheses[0].ended);
  EXPECT_TRUE(outcome.hypotheses[1].ended);
  EXPECT_EQ(outcome.hypotheses[1].length, 2);
  EXPECT_NEAR(outcome.hypotheses[2].score, std::log(.27) / 2, near);
}

TEST_P(SearchTest, TiesGoToTheEarlierHypothesisThenToTheSmallerId) {
  // Both b c and a a have −40. The hypothesis b is better than a.
  const Table hypotheses =
      whole_numbers({{kStart, {{b, 0}, {a, -40}}}, {b, {{d, 0}, {c, -40}}}, {a, {{a, 0}}}});
  EXPECT_EQ(ids_of(decode(hypotheses, rules_of(2, 0), 2)), (std::vector<Ids>{{b, d}, {b, c}}));
  const Table ids = whole_numbers({{kStart, {{d, 0}, {c, -40}, {b, -40}, {x, -40}}}});
  EXPECT_EQ(ids_of(decode(ids, rules_of(2, 0), 1)), (std::vector<Ids>{{d}, {b}}));
  EXPECT_EQ(ids_of(decode(ids, rules_of(3, 0), 1)), (std::vector<Ids>{{d}, {b}, {c}}));
}

TEST_P(SearchTest, TheListKeepsTheOlderAmongEquals) {
  // Each of [], [a] and [a b] ends with −40.
  const Table table = whole_numbers({{kStart, {{a, 0}, {kEnd, -40}}},
                                     {a, {{b, 0}, {kEnd, -40}}},
                                     {b, {{c, 0}, {kEnd, -40}}},
                                     {c, {{c, 0}}}});
  EXPECT_EQ(ids_of(decode(table, rules_of(2, 0, EarlyStopping::kTrue), 4)),
            (std::vector<Ids>{{}, {a}}));
  EXPECT_EQ(ids_of(decode(table, rules_of(2, 0), 4)), (std::vector<Ids>{{a, b, c, c}, {}}));
}

// Applies the three rules to one table. The steps were worked out by hand for two beams and A = 1.
// Step 1 ends [] (−40). Step 2 ends [a] (−41/2 = −20.5), and the list is full. Step 3 ends [a b]
// (−40/3). Step 4 ends [a b c] (0). Step 6 ends [a b c x d] (−40/6) and leaves −60 as the best live
// score. Step 10 leaves −160.
TEST_P(SearchTest, EarlyStopping) {
  const Table table = whole_numbers({{kStart, {{a, 0}, {kEnd, -40}, {x, -41}}},
                                     {a, {{b, 0}, {kEnd, -41}}},
                                     {b, {{c, 0}, {kEnd, -40}}},
                                     {c, {{kEnd, 0}, {x, -40}}},
                                     {x, {{d, 0}}},
                                     {d, {{kEnd, 0}, {d, -40}}}});
  const Outcome first = decode(table, rules_of(2, 1, EarlyStopping::kTrue), 20);
  // The list is full.
  EXPECT_EQ(first.steps, 2);
  EXPECT_EQ(ids_of(first), (std::vector<Ids>{{a}, {}}));
  EXPECT_EQ(scores_of(first), (std::vector<float>{-20.5f, -40.0f}));
  const Outcome now = decode(table, rules_of(2, 1, EarlyStopping::kFalse), 20);
  // Here −60 / 6 ≤ −40 / 6, and one step earlier −40 / 5 > −40 / 3.
  EXPECT_EQ(now.steps, 6);
  EXPECT_EQ(ids_of(now), (std::vector<Ids>{{a, b, c}, {a, b, c, x, d}}));
  EXPECT_EQ(scores_of(now), (std::vector<float>{0.0f, -40.0f / 6}));
  const Outcome never = decode(table, rules_of(2, 1, EarlyStopping::kNever), 20);
  // Here −160 / 20 ≤ −40 / 6, and one step earlier −120 / 20 > −40 / 6.
  EXPECT_EQ(never.steps, 10);
  EXPECT_EQ(ids_of(never), ids_of(now));
  // Without a length penalty, `never` compares at the current length too.
  EXPECT_EQ(decode(table, rules_of(2, 0, EarlyStopping::kNever), 20).steps,
            decode(table, rules_of(2, 0), 20).steps);
  // The sentence is done when both are equal: the best live score and the worst of the list are
  // −40.
  const Table equal = whole_numbers({{kStart, {{kEnd, 0}, {a, -40}}}, {a, {{kEnd, 0}, {a, -60}}}});
  EXPECT_EQ(decode(equal, rules_of(2, 0), 20).steps, 2);
}

TEST_P(SearchTest, AListThatIsNotFullGoesOnToTheLimit) {
  // The end token is never among the first two candidates.
  const Table table =
      whole_numbers({{kStart, {{a, 0}, {b, -40}}}, {a, {{a, 0}, {b, -40}}}, {b, {{a, 0}}}});
  for (const auto stopping : {EarlyStopping::kTrue, EarlyStopping::kFalse, EarlyStopping::kNever}) {
    EXPECT_EQ(decode(table, rules_of(2, 1, stopping), 9).steps, 9);
  }
}

TEST_P(SearchTest, DeadHypothesesNeverFinish) {
  const Table table = whole_numbers({{kStart, {{a, 0}, {b, -40}}}});
  SearchRules rules = rules_of(9, 1);
  const Outcome all = decode(table, rules, 1);
  // There is one hypothesis for each letter.
  EXPECT_EQ(all.hypotheses.size(), 7u);
  rules.never_chosen = {kEnd, c, d, x, kStart};
  EXPECT_EQ(ids_of(decode(table, rules, 1)), (std::vector<Ids>{{a}, {b}}));
  rules.never_chosen = {kEnd, b, c, d, x, kStart};
  EXPECT_EQ(ids_of(decode(table, rules, 3)), (std::vector<Ids>{{a, a, a}}));
}

// The sizes lie around the block sizes in which a backend may process the vocabulary. The last id
// is never chosen, as the pad of opus-mt models.
TEST_P(SearchTest, LargeVocabulariesAgree) {
  int compared = 0;
  for (const int vocabulary : {127, 128, 129, 511, 512, 513, 1025}) {
    for (const bool renormalize : {false, true}) {
      Random random(static_cast<unsigned>(vocabulary));
      Table table(vocabulary);
      for (float& logit : table.logits) logit = uniform(random, -4, 4);
      table.round_to(lab.type());
      for (const int beams : {1, 4}) {
        SearchRules rules{.beams = beams,
                          .start = vocabulary - 1,
                          .ends = {0},
                          .renormalize = renormalize,
                          .never_chosen = {vocabulary - 1}};
        const ReferenceResult expected = ReferenceSearch(table, rules, 3, 0).run();
        if (expected.margin < decidable(GetParam())) continue;
        ++compared;
        const Outcome found = decode(table, rules, 3);
        ASSERT_EQ(found.hypotheses.size(), expected.hypotheses.size())
            << vocabulary << " ids, renormalize " << renormalize;
        for (std::size_t i = 0; i < found.hypotheses.size(); ++i) {
          EXPECT_EQ(found.hypotheses[i].ids, expected.hypotheses[i].ids)
              << vocabulary << " ids, renormalize " << renormalize;
          EXPECT_NEAR(found.hypotheses[i].score, expected.hypotheses[i].score, 1e-4);
        }
      }
    }
  }
  // There are 28 cases.
  EXPECT_GT(compared, 20);
}

TEST_P(SearchTest, ABiasIsAddedToTheLogits) {
  int compared = 0;
  for (const unsigned seed : {5u, 6u, 7u, 8u, 9u, 10u}) {
    Random random(seed);
    Table plain(40);
    Matrix bias(1, 40);
    for (double& value : bias.values) value = uniform(random, -2, 2);
    for (float& logit : plain.logits) logit = uniform(random, -4, 4);
    plain.round_to(lab.type());
    Table shifted = plain;
    for (std::size_t i = 0; i < plain.logits.size(); ++i)
      shifted.logits[i] += static_cast<float>(bias.values[i % 40]);
    for (const bool renormalize : {false, true}) {
      SearchRules rules{
          .beams = 4, .start = 1, .ends = {0}, .renormalize = renormalize, .never_chosen = {}};
      if (renormalize) rules.never_chosen = {3, 17};
      const ReferenceResult expected = ReferenceSearch(shifted, rules, 8, 0).run();
      if (expected.margin < decidable(GetParam())) continue;
      ++compared;
      TableModel model(lab, plain);
      model.projection().linear.bias = lab.put(bias, DType::kFloat32);
      const Outcome found = decode_with(model, lab, rules, 8, 0, 1, 0);
      ASSERT_EQ(ids_of(found), ids_of({.hypotheses = expected.hypotheses}));
      for (std::size_t i = 0; i < found.hypotheses.size(); ++i)
        EXPECT_NEAR(found.hypotheses[i].score, expected.hypotheses[i].score, 1e-5);
    }
  }
  // There are 12 cases.
  EXPECT_GE(compared, 4);
}

// The best tokens of the first split of the vocabulary may be in any order, and a token of a later
// split belongs between them.
TEST_P(SearchTest, ALaterPieceMayHoldBetterTokens) {
  for (const bool ascending : {true, false}) {
    for (const int rank : {1, 2, 3, 4}) {
      Table table(600);
      std::fill(table.logits.begin(), table.logits.end(), -20.0f);
      for (int i = 0; i < 8; ++i)
        table.row(0, 0, 1)[100 + i] = static_cast<float>(ascending ? i : 7 - i);
      table.row(0, 0, 1)[550] = 7.5f - static_cast<float>(rank - 1);
      const Outcome outcome =
          decode(table, {.beams = 4, .start = 1, .ends = {0}, .never_chosen = {}}, 1);
      ASSERT_EQ(outcome.hypotheses.size(), 4u);
      for (int i = 0; i < 4; ++i) {
        // This is the rank among the tokens of the first split.
        const int better = i - (i >= rank);
        const int expected = i + 1 == rank ? 550 : ascending ? 107 - better : 100 + better;
        EXPECT_EQ(outcome.hypotheses[static_cast<std::size_t>(i)].ids, (Ids{expected}))
            << "rank " << rank << ", ascending " << ascending;
      }
    }
  }
}

TEST_P(SearchTest, BeamSizes) {
  for (const int beams : {-1, 0, 257}) {
    SearchRules rules = rules_of(1, 1);
    rules.beams = beams;
    expect_error([&] { Search(*lab, lab.queue(), rules, 1, 4); },
                 {"beam size", fmt::format("{}", beams), "1 to 256"});
  }
  const Table table =
      whole_numbers({{kStart, {{a, 0}, {b, -40}}}, {a, {{kEnd, 0}}}, {b, {{a, -1}, {kEnd, 0}}}});
  const Outcome widest = decode(table, rules_of(256, 0), 2);
  // These are the end token alone, and the seven tokens that may follow each of six letters.
  EXPECT_EQ(widest.hypotheses.size(), 43u);
  EXPECT_EQ(widest.hypotheses.at(0).ids, (Ids{a}));
}

// The runner computes the number of slots with bytes_per_slot().
TEST_P(SearchTest, BytesPerSlotAreWhatItTakes) {
  struct Counting final : UnrecordedBackend {
    using UnrecordedBackend::UnrecordedBackend;
    Buffer allocate(std::size_t bytes) override {
      taken += static_cast<std::int64_t>(bytes);
      return UnrecordedBackend::allocate(bytes);
    }
    std::int64_t taken = 0;
  };
  for (const int beams : {1, 5}) {
    Counting counting(GetParam().make());
    const auto queue = counting.make_queue();
    const SearchRules rules = rules_of(beams, 1);
    const Search search(counting, *queue, rules, 7, 30);
    EXPECT_EQ(counting.taken, 7 * Search::bytes_per_slot(rules, 30));
  }
}

}  // namespace
}  // namespace xlate::test
