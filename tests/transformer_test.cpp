// The whole network on a real file: what a sentence gets does not depend on what is decoded beside it, before it or where.
#include "models/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "engine/runner.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;

// Source ids from a file, so that no SentencePiece is asked.
std::vector<Ids> shared_sources() {
  std::ifstream file(XLATE_SOURCE_DIR "/tests/data/opus-shape/shared/source.ids");
  std::vector<Ids> sources;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    sources.emplace_back(std::istream_iterator<std::int32_t>(words), std::istream_iterator<std::int32_t>());
  }
  EXPECT_EQ(sources.size(), 200u);
  return sources;
}

class ListSource final : public SentenceSource {
 public:
  explicit ListSource(std::vector<Sentence> sentences) : sentences_(std::move(sentences)) {}
  const Sentence* next(bool) override { return taken_ < sentences_.size() ? &sentences_[taken_] : nullptr; }
  Sentence take() override { return sentences_[taken_++]; }

 private:
  std::vector<Sentence> sentences_;
  std::size_t taken_ = 0;
};

// One file for all tests of this program.
const ModelFile& shared_file() {
  static const ModelFile file = ModelFile::open(XLATE_TEST_MODELS "/shared.bin");
  return file;
}

SearchRules rules_of(const ModelFile& file, int beams) {
  const ModelDescription& model = file.description();
  return {.beams = beams,
          .start = model.tokens.start,
          .end = model.tokens.end,
          .forced_first = model.generation.forced_first,
          .forced_end = model.generation.forced_end,
          .renormalize = model.generation.renormalize,
          .never_chosen = model.generation.never_chosen};
}

std::string text_of(const Hypothesis& hypothesis) {
  std::string text = fmt::format("score {:.7g}:", hypothesis.score);
  for (const std::int32_t id : hypothesis.ids) text += fmt::format(" {}", id);
  return text;
}

class TransformerTest : public testing::TestWithParam<BackendUnderTest> {
 protected:
  TransformerTest() : backend(GetParam().make()), model(shared_file(), *backend) {}

  // Lines' hypotheses, by line.
  std::vector<std::vector<Hypothesis>> decode(const std::vector<Ids>& sources, int beams, std::int64_t batch_tokens, std::int64_t max_length = 40) {
    std::vector<Sentence> sentences;
    std::size_t longest = 1;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      sentences.push_back({static_cast<std::int64_t>(i), sources[i]});
      longest = std::max(longest, sources[i].size());
    }
    RunnerOptions options;
    options.rules = rules_of(shared_file(), beams);
    options.batch_tokens = batch_tokens;
    options.longest_source = static_cast<std::int64_t>(longest);
    options.max_length = max_length;
    Runner runner(*backend, model, options);
    ListSource source(std::move(sentences));
    std::vector<std::vector<Hypothesis>> results(sources.size());
    const std::atomic<bool> stop{false};
    runner.run(source, [&](Decoded decoded) { results[static_cast<std::size_t>(decoded.line)] = std::move(decoded.hypotheses); }, stop);
    return results;
  }
  static void expect_same(const std::vector<std::vector<Hypothesis>>& found, const std::vector<std::vector<Hypothesis>>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t line = 0; line < found.size(); ++line) {
      ASSERT_FALSE(found[line].empty()) << "line " << line + 1;
      ASSERT_EQ(found[line].size(), expected[line].size()) << "line " << line + 1;
      for (std::size_t i = 0; i < found[line].size(); ++i) {
        const Hypothesis &f = found[line][i], &e = expected[line][i];
        EXPECT_NEAR(f.score, e.score, 1e-4) << "line " << line + 1 << ", hypothesis " << i;
        // Two that are as good may change places.
        const bool tie = i + 1 < expected[line].size() && e.score - expected[line][i + 1].score < 1e-5f;
        const bool tied = i > 0 && expected[line][i - 1].score - e.score < 1e-5f;
        if (!tie && !tied) {
          EXPECT_EQ(f.ids, e.ids) << "line " << line + 1 << ", hypothesis " << i << "\nfound " << text_of(f) << "\nexpected " << text_of(e);
        }
      }
    }
  }

  std::unique_ptr<Backend> backend;
  Transformer model;
};
INSTANTIATE_TEST_SUITE_P(, TransformerTest, testing::ValuesIn(backends()), backend_name);

TEST_P(TransformerTest, ABatchIsItsSentencesOneByOne) {
  const auto sources = shared_sources();
  for (const int beams : {1, 4}) {
    const auto alone = decode(sources, beams, 1);
    expect_same(decode(sources, beams, 300), alone);
    expect_same(decode(sources, beams, 5000), alone);
    std::vector<Ids> reversed(sources.rbegin(), sources.rend());
    auto found = decode(reversed, beams, 200);
    std::reverse(found.begin(), found.end());
    expect_same(found, alone);
  }
}

// One sentence in each of several slots, the others going their own ways: the same hidden rows at every step.
TEST_P(TransformerTest, TheSlotAndItsNeighboursChangeNothing) {
  const auto sources = shared_sources();
  const Ids& ids = sources[5];
  constexpr std::int64_t kSlots = 4, kBeams = 3;
  constexpr std::int32_t kLimit = 20;
  std::vector<std::vector<float>> expected;
  for (const std::vector<std::int32_t>& slots : {std::vector<std::int32_t>{0}, {3}, {2, 0, 3}, {0, 1, 2, 3}, {3, 2, 1, 0}}) {
    for (std::size_t place = 0; place < slots.size(); ++place) {
      model.begin({.slots = kSlots, .beams = kBeams, .encoder_tokens = 500, .source_tokens = 500, .longest_source = 100, .longest_target = kLimit, .target_factor = 3});
      const auto queue = backend->make_queue();
      Search search(*backend, *queue, rules_of(shared_file(), kBeams), kSlots, kLimit);
      std::vector<Source> batch;
      for (std::size_t i = 0; i < slots.size(); ++i) batch.push_back({i == place ? ids : sources[10 + i], kLimit});
      for (std::size_t i = 0; i < slots.size(); ++i) model.reserve(slots[i], batch[i]);
      model.install(*queue, *model.encode(*queue, batch), 0, slots);
      search.start(slots, std::vector<std::int32_t>(slots.size(), kLimit));
      const Buffer active = backend->allocate(slots.size() * sizeof(std::int32_t));
      backend->upload(*queue, std::as_bytes(std::span(slots)), active.data());
      const StepRows rows{active.as<std::int32_t>(), static_cast<std::int64_t>(slots.size()), kBeams};
      const bool first = expected.empty();
      for (std::size_t n = 0; n < 6; ++n) {
        const Tensor hidden = model.step(*queue, search.state(), rows);
        ASSERT_EQ(hidden.rows, rows.rows());
        const auto ticket = backend->read_later(*queue, {static_cast<const std::byte*>(hidden.row_range(static_cast<std::int64_t>(place) * kBeams, kBeams).data),
                                                         static_cast<std::size_t>(kBeams * hidden.stride) * size_of(hidden.dtype)});
        const auto bytes = ticket->wait();
        if (hidden.dtype != DType::kFloat32) GTEST_SKIP() << "compares float32";
        std::vector<float> values(bytes.size() / sizeof(float));
        std::memcpy(values.data(), bytes.data(), bytes.size());
        // At the first step all beams are the start token's; the others' candidates are worthless, and their order may differ.
        if (first) expected.push_back(values);
        for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[n][i], 1e-4) << "slot " << slots[place] << " of " << slots.size() << ", step " << n;
        search.step(hidden, model.projection(), rows);
      }
      for (const std::int32_t slot : slots) model.release(slot);
    }
  }
}

// Longer than any position that was stored, or that the model was made for.
TEST_P(TransformerTest, SourcesAndTargetsOfAnyLength) {
  const auto sources = shared_sources();
  std::vector<Ids> tall;
  for (const std::size_t length : {600u, 513u, 700u, 64u}) {
    tall.emplace_back();
    for (std::size_t i = 0; tall.back().size() + 1 < length; ++i) {
      tall.back().insert(tall.back().end(), sources[i % 200].begin(), sources[i % 200].end() - 1);
    }
    tall.back().resize(length - 1);
    tall.back().push_back(shared_file().description().tokens.end);
  }
  const auto alone = decode(tall, 2, 1, 620);
  expect_same(decode(tall, 2, 2000, 620), alone);
  for (const auto& hypotheses : alone) {
    for (const Hypothesis& hypothesis : hypotheses) EXPECT_TRUE(std::isfinite(hypothesis.score));
  }
  EXPECT_NE(alone[0][0].sum, alone[1][0].sum);
}

// What came before leaves nothing behind: the same model begun again, larger and smaller.
TEST_P(TransformerTest, BeginsAgain) {
  const auto all = shared_sources();
  const std::vector<Ids> sources(all.begin(), all.begin() + 30);
  const auto expected = decode(sources, 3, 200);
  decode(sources, 1, 1000);
  decode(sources, 5, 50, 3);
  expect_same(decode(sources, 3, 200), expected);
}

TEST_P(TransformerTest, HasRoomUntilItsPagesAreTaken) {
  model.begin({.slots = 3, .beams = 1, .encoder_tokens = 100, .source_tokens = 100, .longest_source = 50, .longest_target = 40, .target_factor = 0, .target_extra = 0});
  const Ids ids(50, 5);
  const Source longest{ids, 40};
  // 40 tokens are 3 pages of 16, and there are 3.
  EXPECT_TRUE(model.has_room(longest));
  model.reserve(0, longest);
  EXPECT_FALSE(model.has_room({{ids.data(), 1}, 1}));
  model.release(0);
  model.reserve(1, {{ids.data(), 1}, 1});
  EXPECT_FALSE(model.has_room(longest));
  EXPECT_TRUE(model.has_room({{ids.data(), 1}, 32}));
  model.release(1);
  EXPECT_TRUE(model.has_room(longest));
}

}  // namespace
}  // namespace xlate::test
