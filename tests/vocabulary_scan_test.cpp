// Tests the scan of the vocabulary in a step of search on the CPU. Hidden rows and weights are −1,
// 0 or 1, so that logits are whole numbers, which every precision computes exactly, and many of
// them are equal. Which candidates a step chooses is then known, and must not depend on how the
// vocabulary is divided among threads nor on whether weights are stored in 16 or 32 bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "engine/search.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

constexpr std::int64_t kSentences = 50, kWidth = 512, kVocabulary = 1501;
constexpr int kSteps = 4, kMostBeams = 3;

Matrix integers(Random& random, std::int64_t rows, std::int64_t columns) {
  Matrix matrix(rows, columns);
  for (double& value : matrix.values) value = whole(random, -1, 1);
  return matrix;
}

// Has the hidden rows of each step, of which those of kMostBeams beams belong to a sentence, and
// the weights. The first column of all hidden rows is 0, so that the first weight of a token does
// not change any logit.
struct Inputs {
  std::vector<Matrix> hidden;
  Matrix weight;
};

Inputs random_inputs(std::uint32_t seed) {
  Random random{seed};
  Inputs inputs;
  for (int step = 0; step < kSteps; ++step) {
    inputs.hidden.push_back(integers(random, kSentences * kMostBeams, kWidth));
    for (std::int64_t row = 0; row < kSentences * kMostBeams; ++row)
      inputs.hidden.back()(row, 0) = 0;
  }
  inputs.weight = integers(random, kVocabulary, kWidth);
  // Tokens with the same weights have the same logits in every row.
  for (std::int64_t token = 0; token < kVocabulary; token += 7) {
    const std::int64_t other = whole(random, 0, kVocabulary - 1);
    for (std::int64_t i = 0; i < kWidth; ++i) inputs.weight(token, i) = inputs.weight(other, i);
  }
  return inputs;
}

// Has what a step leaves: for each row its token, its score and the beam that it continues.
using Hypotheses = std::vector<std::tuple<std::int32_t, float, std::int32_t>>;

std::vector<Hypotheses> search(Precision precision, int threads, int beams, const Inputs& inputs) {
  const BackendUnderTest cpu{
      "cpu", [=] { return make_backend({.precision = precision, .threads = threads}); }};
  Lab lab{cpu};
  const SearchRules rules{.beams = beams, .never_chosen = {5, 700}};
  Search search(*lab, lab.queue(), rules, kSentences, kSteps + 1);
  std::vector<SlotStart> starts;
  std::vector<std::int32_t> slots;
  for (std::int32_t slot = 0; slot < kSentences; ++slot) {
    starts.push_back({.slot = slot, .limit = kSteps + 1});
    slots.push_back(slot);
  }
  search.start(starts);
  const StepRows rows{lab.put(slots), kSentences, beams};
  const Projection projection{.linear = {.weight = lab.put_weight(inputs.weight), .bias = {}}};
  std::vector<Hypotheses> found;
  for (int step = 0; step < kSteps; ++step) {
    Tensor hidden = lab.put(inputs.hidden[static_cast<std::size_t>(step)], DType::kFloat32);
    hidden.rows = rows.rows();
    search.step(hidden, rows, projection);
    const SearchState& state = search.state();
    Hypotheses now;
    for (std::int64_t slot = 0; slot < kSentences; ++slot) {
      for (std::int64_t beam = 0; beam < beams; ++beam) {
        const std::int64_t row = slot * beams + beam;
        now.emplace_back(state.token[row], state.score[row],
                         state.history[(slot * state.longest + step) * beams + beam].parent);
      }
    }
    found.push_back(std::move(now));
  }
  return found;
}

// A continuation of a hypothesis in double precision.
struct Continuation {
  double value;
  std::int32_t parent, token;
};

// Returns the continuations of a sentence's hypotheses, which are in `beams` rows and have these
// scores, best first. Of equal ones the earlier hypothesis comes first and then the smaller id.
std::vector<Continuation> continuations(const Inputs& inputs, int step, std::int64_t sentence,
                                        int beams, const std::vector<double>& scores) {
  const Matrix& hidden = inputs.hidden[static_cast<std::size_t>(step)];
  std::vector<Continuation> all;
  for (std::int32_t beam = 0; beam < std::ssize(scores); ++beam) {
    std::vector<double> logits(kVocabulary);
    for (std::int64_t token = 0; token < kVocabulary; ++token) {
      for (std::int64_t i = 0; i < kWidth; ++i)
        logits[static_cast<std::size_t>(token)] +=
            hidden(sentence * beams + beam, i) * inputs.weight(token, i);
    }
    const double most = *std::ranges::max_element(logits);
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - most);
    for (std::int32_t token = 0; token < kVocabulary; ++token) {
      if (token == 5 || token == 700) continue;
      all.push_back({scores[static_cast<std::size_t>(beam)] +
                         logits[static_cast<std::size_t>(token)] - most - std::log(sum),
                     beam, token});
    }
  }
  std::ranges::sort(all, [](const Continuation& a, const Continuation& b) {
    // Whole numbers that differ in one row, and sums of different rows, are this far apart.
    if (std::abs(a.value - b.value) > 1e-9) return a.value > b.value;
    return std::tie(a.parent, a.token) < std::tie(b.parent, b.token);
  });
  return all;
}

class VocabularyScan : public testing::TestWithParam<Precision> {};
INSTANTIATE_TEST_SUITE_P(, VocabularyScan, testing::Values(Precision::kFloat32, Precision::kInt8),
                         [](const auto& info) {
                           return info.param == Precision::kInt8 ? "int8" : "fp32";
                         });

TEST_P(VocabularyScan, ChoosesTheBestContinuationsOfAllSentences) {
  const Inputs inputs = random_inputs(1);
  for (const auto& [threads, beams] : {std::pair{1, 1}, {2, 1}, {1, kMostBeams}, {2, kMostBeams}}) {
    const std::vector<Hypotheses> found = search(GetParam(), threads, beams, inputs);
    int ties = 0;
    for (std::int64_t sentence = 0; sentence < kSentences; ++sentence) {
      std::vector<double> scores{0};
      for (int step = 0; step < kSteps; ++step) {
        const std::vector<Continuation> wanted =
            continuations(inputs, step, sentence, beams, scores);
        scores.clear();
        for (int beam = 0; beam < beams; ++beam) {
          const auto& [token, score, parent] =
              found[static_cast<std::size_t>(step)]
                   [static_cast<std::size_t>(sentence * beams + beam)];
          const Continuation& best = wanted[static_cast<std::size_t>(beam)];
          EXPECT_EQ(token, best.token) << sentence << ", " << step << ", " << beam;
          EXPECT_EQ(parent, best.parent) << sentence << ", " << step << ", " << beam;
          EXPECT_NEAR(score, best.value, 1e-4);
          ties += std::abs(best.value - wanted[static_cast<std::size_t>(beam) + 1].value) < 1e-9;
          scores.push_back(best.value);
        }
      }
    }
    // The test would show little of equal logits if few were among the best.
    EXPECT_GT(ties, 10);
  }
}

TEST_P(VocabularyScan, DoesNotDependOnTheThreads) {
  const Inputs inputs = random_inputs(2);
  for (const int beams : {1, kMostBeams}) {
    const std::vector<Hypotheses> wanted = search(GetParam(), 1, beams, inputs);
    for (const int threads : {2, 3, 7})
      EXPECT_EQ(search(GetParam(), threads, beams, inputs), wanted);
  }
}

// Numbers that float16 does not hold, one in each panel of weights, keep the panels in float32.
TEST(VocabularyScanTest, DoesNotDependOnHowWeightsAreStored) {
  Inputs inputs = random_inputs(3);
  const std::vector<Hypotheses> narrow = search(Precision::kFloat32, 2, kMostBeams, inputs);
  for (std::int64_t token = 0; token < kVocabulary; token += 64)
    inputs.weight(token, 0) = static_cast<double>(0.1f);
  EXPECT_EQ(search(Precision::kFloat32, 2, kMostBeams, inputs), narrow);
}

}  // namespace
}  // namespace xlate::test
