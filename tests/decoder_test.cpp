// Compares decoders without an encoder with loops in double precision, from the model file to the
// hypotheses, and expects the same hypotheses whatever is decoded beside a prompt.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "engine/runner.h"
#include "models/token_scorer.h"
#include "models/transformer.h"
#include "tests/decode_sentences.h"
#include "tests/decoder_reference.h"

namespace xlate::test {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

std::vector<DecoderCase> decoder_cases() {
  const json gated{{"gated", true}, {"activation", "swish"}};
  return {{"learned_positions_layer_norms_biases",
           {{"embedding", {{"positions", "learned"}, {"rows", RandomDecoder::kContext}}},
            {"norm", {{"kind", "layer"}}},
            {"feed_forward", {{"activation", "gelu_tanh"}}}},
           {},
           true},
          {"rotary_gated_fewer_keys",
           {{"attention", {{"kv_heads", 2}, {"rotary_dims", 6}}}, {"feed_forward", gated}},
           {}},
          {"windows_softcaps_rates_by_layer",
           {{"embedding", {{"scale", 4}}},
            {"norm", {{"places", {"before", "inside"}}}},
            {"attention",
             {{"kv_heads", 1},
              {"rotary_dims", 6},
              {"rates", {1, -1, 0}},
              {"windows", {3, 0, 5}},
              {"softcap", 1.5},
              {"query_key_norm", true}}},
            {"feed_forward", gated}},
           {{"softcap", 2}}},
          {"parallel_part_rotated",
           {{"parallel", true}, {"norm", {{"kind", "layer"}}}, {"attention", {{"rotary_dims", 2}}}},
           {},
           true},
          {"parallel_with_one_norm",
           {{"parallel", true}, {"norm", {{"kind", "layer"}}}, {"attention", {{"rotary_dims", 6}}}},
           {{"scale", 0.25}},
           false,
           true},
          {"slopes_embedding_norm",
           {{"embedding", {{"norm", true}}},
            {"norm", {{"kind", "layer"}}},
            {"attention", {{"slope", true}}}},
           {},
           true},
          {"norms_inside_residual_scale",
           {{"residual_scale", 0.7},
            {"norm", {{"places", {"inside"}}}},
            {"attention", {{"rotary_dims", 4}}}},
           {}},
          {"one_layer_post_norm",
           {{"layers", 1},
            {"embedding", {{"positions", "learned"}, {"rows", RandomDecoder::kContext}}},
            {"norm", {{"places", {"after"}}, {"final", false}}}},
           {}}};
}

class DecoderTest : public OnBackendWith<DecoderCase> {
 protected:
  void SetUp() override {
    OnBackendWith::SetUp();
    if (IsSkipped()) return;
    // The prompts have from 1 token to many.
    for (int n = 0; n < 24; ++n) {
      Ids prompt;
      for (int t = 0; t < (n < 6 ? 1 : n < 20 ? n - 4 : 45); ++t)
        prompt.push_back(whole(random, 0, RandomDecoder::kVocabulary - 1));
      prompts.push_back(std::move(prompt));
    }
  }
  // Decodes the prompts in this order, and returns the hypotheses by their numbers.
  std::vector<std::vector<Hypothesis>> decode(const std::vector<std::size_t>& order, int beams,
                                              std::int64_t batch_tokens) {
    std::vector<Sentence> sentences;
    for (const std::size_t i : order)
      sentences.push_back({static_cast<std::int64_t>(i), prompts[i]});
    RunnerOptions options;
    options.rules = {
        .beams = beams, .early_stopping = EarlyStopping::kTrue, .ends = {kEnd}, .never_chosen = {}};
    options.batch_tokens = batch_tokens;
    options.longest_source = 45;
    options.max_length = kMostTokens;
    options.context = RandomDecoder::kContext;
    options.policy.page_tokens = 4;
    // With a small budget, prompts are read in passes of a few tokens.
    options.policy.least_pass_tokens = 1;
    Transformer model(load_network(file, *lab), *lab);
    Runner runner(*lab, model, options);
    return decode_sentences(runner, std::move(sentences));
  }
  std::vector<std::size_t> in_order() const {
    std::vector<std::size_t> order(prompts.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    return order;
  }
  // Expects that the score of a hypothesis is the mean of its tokens' log-probabilities, and in a
  // greedy search that no token was more probable than the one that was chosen.
  void expect_hypothesis(const Ids& prompt, const Hypothesis& found, bool greedy, double near) {
    Ids generated = found.ids, ids = prompt;
    if (found.ended) generated.push_back(kEnd);
    ids.insert(ids.end(), generated.begin(), generated.end());
    const Matrix logits = decoder.logits(ids);
    double sum = 0;
    for (std::size_t t = 0; t < generated.size(); ++t) {
      const auto row = static_cast<std::int64_t>(prompt.size() + t) - 1;
      double all = 0, most = -1e9;
      for (std::int64_t v = 0; v < RandomDecoder::kVocabulary; ++v) {
        all += std::exp(logits(row, v));
        most = std::max(most, logits(row, v));
      }
      sum += logits(row, generated[t]) - std::log(all);
      EXPECT_TRUE(!greedy || logits(row, generated[t]) >= most - 2 * near);
    }
    EXPECT_NEAR(found.score, sum / static_cast<double>(generated.size()), near);
    const std::int64_t limit =
        std::min<std::int64_t>(kMostTokens, RandomDecoder::kContext - std::ssize(prompt));
    EXPECT_TRUE(found.ended || std::ssize(found.ids) == limit);
  }

  static constexpr std::int32_t kEnd = 2;
  static constexpr std::int64_t kMostTokens = 25;
  RandomDecoder decoder{GetParam().test};
  AlignedBytes bytes = decoder.builder().bytes();
  const ModelFile file{"random.bin", bytes.span()};
  std::vector<Ids> prompts;
};
INSTANTIATE_TEST_SUITE_P(, DecoderTest, testing::ValuesIn(on_each(backends(), decoder_cases(), 2)),
                         CaseName());

TEST_P(DecoderTest, ScoresAreThoseOfTheLoops) {
  const DType type = backend().type;
  const double near = type == DType::kFloat32 ? 1e-4 : type == DType::kFloat16 ? 0.02 : 0.15;
  for (const int beams : {1, 3}) {
    const auto found = decode(in_order(), beams, 200);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      SCOPED_TRACE(fmt::format("{} beams, prompt {} of {} tokens", beams, i, prompts[i].size()));
      ASSERT_FALSE(found[i].empty());
      for (const Hypothesis& hypothesis : found[i])
        expect_hypothesis(prompts[i], hypothesis, beams == 1, near);
      if (HasFailure()) return;
    }
  }
}

// In 16-bit types the order of sums decides between tokens that are about as probable.
TEST_P(DecoderTest, WhatIsDecodedBesideAPromptChangesNothing) {
  if (backend().type != DType::kFloat32) GTEST_SKIP() << "ties in " << name_of(backend().type);
  for (const int beams : {1, 4}) {
    const auto expected = decode(in_order(), beams, 1);
    std::vector<std::size_t> backwards = in_order(), shuffled = in_order();
    std::reverse(backwards.begin(), backwards.end());
    std::shuffle(shuffled.begin(), shuffled.end(), random);
    for (const auto& [order, batch_tokens] :
         {std::pair{in_order(), 5000}, {backwards, 60}, {shuffled, 100}, {shuffled, 1000}}) {
      const auto found = decode(order, beams, batch_tokens);
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        SCOPED_TRACE(fmt::format("{} beams, budget {}, prompt {}", beams, batch_tokens, i));
        ASSERT_EQ(found[i].size(), expected[i].size());
        for (std::size_t k = 0; k < found[i].size(); ++k) {
          ASSERT_EQ(found[i][k].ids, expected[i][k].ids);
          ASSERT_NEAR(found[i][k].score, expected[i][k].score, 1e-5);
        }
      }
    }
  }
}

TEST_P(DecoderTest, TextsHaveTheProbabilitiesOfTheLoops) {
  const DType type = backend().type;
  const double near = type == DType::kFloat32 ? 1e-4 : type == DType::kFloat16 ? 0.02 : 0.15;
  std::vector<std::vector<double>> sums;
  // In the second run a batch has one text, and the longest texts are read in several passes.
  for (const std::int64_t batch_tokens : {200, 1}) {
    std::vector<Sentence> texts;
    for (std::size_t i = 0; i < prompts.size(); ++i)
      texts.push_back({static_cast<std::int64_t>(i), prompts[i]});
    TokenScorer scorer(load_network(file, *lab), *lab,
                       {.batch_tokens = batch_tokens,
                        .pass_tokens = batch_tokens > 1 ? batch_tokens : 7,
                        .longest_source = 45});
    ListSource source(std::move(texts));
    std::vector<double>& found = sums.emplace_back(prompts.size());
    const std::atomic<bool> stop{false};
    scorer.run(
        source,
        [&](std::vector<ScoredSentence> scored) {
          for (const ScoredSentence& text : scored) {
            const auto line = static_cast<std::size_t>(text.sentence.line);
            EXPECT_EQ(std::ssize(text.log_probabilities), std::ssize(prompts[line]) - 1);
            for (const float value : text.log_probabilities) found[line] += value;
          }
        },
        stop);
    std::int64_t tokens = 0;
    for (const Ids& prompt : prompts) tokens += std::ssize(prompt) - 1;
    EXPECT_EQ(scorer.statistics().target_tokens, tokens);
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Matrix logits = decoder.logits(prompts[i]);
    double sum = 0;
    for (std::size_t t = 0; t + 1 < prompts[i].size(); ++t) {
      double all = 0;
      for (std::int64_t v = 0; v < RandomDecoder::kVocabulary; ++v)
        all += std::exp(logits(static_cast<std::int64_t>(t), v));
      sum += logits(static_cast<std::int64_t>(t), prompts[i][t + 1]) - std::log(all);
    }
    EXPECT_NEAR(sums[0][i], sum, near * static_cast<double>(prompts[i].size())) << "text " << i;
    if (backend().cuda)
      EXPECT_EQ(sums[1][i], sums[0][i]) << "text " << i;
    else
      EXPECT_NEAR(sums[1][i], sums[0][i], 1e-4) << "text " << i;
  }
}

}  // namespace
}  // namespace xlate::test
