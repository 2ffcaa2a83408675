// Tests the whole network on a real file. The hypotheses of a sentence do not depend on what is
// decoded beside it or before it, nor on its slot.
#include "models/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include "engine/caches.h"
#include "engine/runner.h"
#include "engine/workspace.h"
#include "models/token_scorer.h"
#include "tests/decode_sentences.h"
#include "tests/late_backend.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;

// Reads source ids from a file, so that the tests need no tokenizer.
std::vector<Ids> shared_sources() {
  std::ifstream file(source_folder() + "/tests/data/opus-shape/shared/source.ids");
  std::vector<Ids> sources;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    sources.emplace_back(std::istream_iterator<std::int32_t>(words),
                         std::istream_iterator<std::int32_t>());
  }
  EXPECT_EQ(sources.size(), 200u);
  return sources;
}

// All tests of this program share one file.
const ModelFile& shared_file() {
  static const ModelFile file = ModelFile::open(models_folder() + "/shared.bin");
  return file;
}

SearchRules rules_of(const ModelFile& file, int beams) {
  const ModelDescription& model = file.description();
  return {.beams = beams,
          .start = model.tokens.start,
          .ends = {model.tokens.end},
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

// These bounds say how far two ways to decode the same sentences may differ. On the CPU only the
// blocking of the products changes the order of sums. A GPU's library chooses the order of a
// product by its number of rows; in 16-bit types about one sum in a thousand is then rounded
// differently.
struct Likeness {
  // Scores may differ by this much.
  double score;
  // Hypotheses whose scores are closer than this may change places.
  double tie;
  // In this fraction of the lines the best hypothesis may be another, because a tie was decided
  // differently.
  double different_lines;
};

Likeness likeness_of(const BackendUnderTest& test) {
  if (!test.cuda) return {1e-4, 1e-5, 0};
  if (test.type == DType::kFloat32) return {1e-4, 1e-4, 0.01};
  return test.type == DType::kFloat16 ? Likeness{0.01, 0.01, 0.05} : Likeness{0.02, 0.02, 0.05};
}

using Hypotheses = std::vector<std::vector<Hypothesis>>;

// This backend keeps a view of the last hidden rows of the latest step.
class HiddenRows final : public UnrecordedBackend {
 public:
  using UnrecordedBackend::UnrecordedBackend;
  void decode(Queue& queue, const Program& program, const Workspace& workspace, const Step& batch,
              const Projection& projection, const SearchRules& rules) override {
    run(queue, program, workspace, batch);
    hidden = workspace.rows(program.out(), batch.rows.rows());
    search_step(queue, hidden, projection, rules, batch.rows, batch.state);
  }
  Tensor hidden;
};

class TransformerTest : public OnBackend {
 protected:
  void SetUp() override {
    OnBackend::SetUp();
    if (IsSkipped()) return;
    backend = GetParam().make();
    model = std::make_unique<Transformer>(load_network(shared_file(), *backend), *backend);
  }

  Hypotheses decode(const std::vector<Ids>& sources, int beams, std::int64_t batch_tokens,
                    std::int64_t max_length = 40) {
    return decode_on(*backend, *model, sources, beams, batch_tokens, max_length);
  }
  // Returns the hypotheses of each line.
  static Hypotheses decode_on(Backend& backend, Transformer& model, const std::vector<Ids>& sources,
                              int beams, std::int64_t batch_tokens, std::int64_t max_length) {
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
    Runner runner(backend, model, options);
    return decode_sentences(runner, std::move(sentences));
  }
  void expect_same(const Hypotheses& found, const Hypotheses& expected) {
    ASSERT_EQ(found.size(), expected.size());
    const Likeness likeness = likeness_of(GetParam());
    const double allowed = likeness.different_lines * static_cast<double>(found.size());
    int different = 0;
    for (std::size_t line = 0; line < found.size(); ++line) {
      ASSERT_FALSE(found[line].empty()) << "line " << line + 1;
      ASSERT_EQ(found[line].size(), expected[line].size()) << "line " << line + 1;
      const std::string why = difference(found[line], expected[line], likeness);
      different += !why.empty();
      EXPECT_TRUE(why.empty() || different <= allowed)
          << "line " << line + 1 << ", " << why << "; " << different << " of " << found.size()
          << " lines so far";
    }
  }
  // Returns what differs between two lists of hypotheses of one line, each with the best first. The
  // text is empty where nothing differs.
  static std::string difference(const std::vector<Hypothesis>& found,
                                const std::vector<Hypothesis>& expected, const Likeness& likeness) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Hypothesis &f = found[i], &e = expected[i];
      if (!(std::fabs(f.score - e.score) <= likeness.score))
        return fmt::format("hypothesis {}: score {}, expected {}", i, f.score, e.score);
      const bool tie = i + 1 < expected.size() && e.score - expected[i + 1].score < likeness.tie;
      const bool tied = i > 0 && expected[i - 1].score - e.score < likeness.tie;
      if (!tie && !tied && f.ids != e.ids)
        return fmt::format("hypothesis {}:\nfound {}\nexpected {}", i, text_of(f), text_of(e));
    }
    return {};
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Transformer> model;
};
INSTANTIATE_TEST_SUITE_P(, TransformerTest, testing::ValuesIn(backends()), backend_name);

// The sources have two tokens and the targets at most six, so there is almost no work to prepare
// for.
TEST_P(TransformerTest, SourcesOfAFewTokens) {
  std::vector<Ids> sources = shared_sources();
  sources.resize(6);
  for (Ids& ids : sources)
    ids.erase(ids.begin(), ids.end() - std::min<std::ptrdiff_t>(2, std::ssize(ids)));
  for (const int beams : {1, 4}) {
    const auto alone = decode(sources, beams, 1, 6);
    expect_same(decode(sources, beams, 12, 6), alone);
  }
}

TEST_P(TransformerTest, ABatchIsItsSentencesOneByOne) {
  const auto all = shared_sources();
  const std::vector<Ids> sources(all.begin(), all.begin() + 80);
  for (const int beams : {1, 4}) {
    const auto alone = decode(sources, beams, 1);
    expect_same(decode(sources, beams, 5000), alone);
    std::vector<Ids> reversed(sources.rbegin(), sources.rend());
    auto found = decode(reversed, beams, 200);
    std::reverse(found.begin(), found.end());
    expect_same(found, alone);
  }
}

// The bounds are twice what was found on a CPU whose weights and results were rounded to the type
// at every operation.
using GpuTransformerTest = TransformerTest;
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GpuTransformerTest);
INSTANTIATE_TEST_SUITE_P(, GpuTransformerTest, testing::ValuesIn(cuda_backends()), backend_name);

TEST_P(GpuTransformerTest, AgreesWithTheCpu) {
  const auto sources = shared_sources();
  const auto cpu = make_backend({.threads = 2});
  Transformer reference(load_network(shared_file(), *cpu), *cpu);
  const bool single = GetParam().type == DType::kFloat32, half = GetParam().type == DType::kFloat16;
  for (const int beams : {1, 4}) {
    const auto expected = decode_on(*cpu, reference, sources, beams, 1000, 40),
               found = decode(sources, beams, 1000);
    double same = 0, difference = 0;
    for (std::size_t line = 0; line < sources.size(); ++line) {
      ASSERT_FALSE(found[line].empty()) << "line " << line + 1;
      same += found[line][0].ids == expected[line][0].ids;
      difference += std::fabs(found[line][0].score - expected[line][0].score);
    }
    const auto lines = static_cast<double>(sources.size());
    EXPECT_GE(same / lines, single ? 0.98 : half ? 0.94 : 0.65) << beams << " beams";
    EXPECT_LE(difference / lines, single ? 1e-4 : half ? 0.005 : 0.04) << beams << " beams";
  }
}

// One sentence has the same hidden rows at every step in each of several slots, while the other
// slots decode other sentences.
TEST_P(TransformerTest, TheSlotAndItsNeighboursChangeNothing) {
  const auto sources = shared_sources();
  const Ids& ids = sources[5];
  constexpr std::int64_t kSlots = 4, kBeams = 3;
  constexpr std::int32_t kLimit = 20;
  const auto backend = std::make_unique<HiddenRows>(GetParam().make());
  const auto model = std::make_unique<Transformer>(load_network(shared_file(), *backend), *backend);
  std::vector<std::vector<float>> expected;
  for (const std::vector<std::int32_t>& slots :
       {std::vector<std::int32_t>{0}, {3}, {2, 0, 3}, {0, 1, 2, 3}, {3, 2, 1, 0}}) {
    for (std::size_t place = 0; place < slots.size(); ++place) {
      const Capacity capacity{.slots = kSlots,
                              .beams = kBeams,
                              .encoder_tokens = 500,
                              .source_tokens = 500,
                              .longest_source = 160,
                              .longest_target = kLimit,
                              .target_factor = 3};
      model->allocate(capacity);
      Caches caches(*backend, {}, model->cache_shape(), capacity);
      model->begin(caches.paged_caches());
      const auto queue = backend->make_queue();
      Search search(*backend, *queue, rules_of(shared_file(), kBeams), kSlots, kLimit);
      std::vector<SourceSentence> batch;
      for (std::size_t i = 0; i < slots.size(); ++i)
        batch.push_back({i == place ? ids : sources[10 + i], kLimit});
      for (std::size_t i = 0; i < slots.size(); ++i) caches.reserve(slots[i], batch[i]);
      caches.publish(*queue);
      model->install(*queue, *model->encode(*queue, batch), 0, slots);
      std::vector<SlotStart> starts;
      for (const std::int32_t slot : slots)
        starts.push_back(
            {.slot = slot, .limit = kLimit, .start = shared_file().description().tokens.start});
      search.start(starts);
      const Buffer active = backend->allocate(slots.size() * sizeof(std::int32_t));
      backend->upload(*queue, std::as_bytes(std::span(slots)), active.data());
      const StepRows rows{active.as<std::int32_t>(), static_cast<std::int64_t>(slots.size()),
                          kBeams};
      const bool first = expected.empty();
      for (std::size_t n = 0; n < 6; ++n) {
        model->step(rows, search);
        const Tensor hidden = backend->hidden;
        ASSERT_EQ(hidden.rows, rows.rows());
        const auto ticket = backend->read_later(
            *queue, {static_cast<const std::byte*>(
                         hidden.row_range(static_cast<std::int64_t>(place) * kBeams, kBeams).data),
                     static_cast<std::size_t>(kBeams * hidden.stride) * size_of(hidden.dtype)});
        const auto bytes = ticket->wait();
        if (hidden.dtype != DType::kFloat32)
          GTEST_SKIP() << "beams may change places in " << name_of(hidden.dtype);
        std::vector<float> values(bytes.size() / sizeof(float));
        std::memcpy(values.data(), bytes.data(), bytes.size());
        // At the first step all beams have the start token. The candidates of all beams but one are
        // worthless, and their order may differ.
        if (first) expected.push_back(values);
        for (std::size_t i = 0; i < values.size(); ++i)
          ASSERT_NEAR(values[i], expected[n][i], 1e-4)
              << "slot " << slots[place] << " of " << slots.size() << ", step " << n;
      }
    }
  }
}

// Search computes a hypothesis step by step, and the scorer all tokens of it at once.
TEST_P(TransformerTest, HypothesesHaveTheProbabilitiesThatTheScorerGives) {
  const auto sources = shared_sources();
  const auto found = decode({sources.begin(), sources.begin() + 40}, 3, 2000);
  const ModelDescription& description = shared_file().description();
  for (const std::int64_t pass : {4096, 50}) {
    std::vector<Sentence> sentences;
    std::vector<double> expected;
    for (std::size_t line = 0; line < found.size(); ++line) {
      for (const Hypothesis& hypothesis : found[line]) {
        // The end that is forced at the limit of 40 tokens adds nothing to the score.
        if (!hypothesis.ended || hypothesis.ids.size() == 39) continue;
        Sentence sentence{std::ssize(sentences), sources[line]};
        sentence.target = hypothesis.ids;
        sentence.target.push_back(description.tokens.end);
        sentences.push_back(std::move(sentence));
        expected.push_back(hypothesis.sum);
      }
    }
    ASSERT_GT(expected.size(), 100u);
    TokenScorer scorer(load_network(shared_file(), *backend), *backend,
                       {.batch_tokens = pass,
                        .pass_tokens = pass,
                        .longest_source = 160,
                        .longest_target = 60,
                        .start = description.tokens.start,
                        .forced_first = description.generation.forced_first});
    ListSource source(std::move(sentences));
    const std::atomic<bool> stop{false};
    std::size_t scored = 0;
    const double near = likeness_of(GetParam()).score;
    scorer.run(
        source,
        [&](std::vector<ScoredSentence> batch) {
          for (const ScoredSentence& sentence : batch) {
            const auto& values = sentence.log_probabilities;
            ASSERT_EQ(values.size(), sentence.sentence.target.size());
            EXPECT_NEAR(std::accumulate(values.begin(), values.end(), 0.0),
                        expected[static_cast<std::size_t>(sentence.sentence.line)],
                        near * static_cast<double>(values.size()));
            ++scored;
          }
        },
        stop);
    EXPECT_EQ(scored, expected.size());
  }
}

// Returns the source tokens that the last layer aligns the tokens of hypotheses with, one after
// another.
Ids aligned_by(Backend& backend, std::vector<Sentence> sentences, std::int64_t batch_tokens) {
  const ModelDescription& description = shared_file().description();
  const StackDescription& decoder = description.network.decoder;
  ScoringOptions options{.batch_tokens = batch_tokens,
                         .pass_tokens = batch_tokens,
                         .longest_source = 160,
                         .longest_target = 60,
                         .start = description.tokens.start,
                         .log_probabilities = false,
                         .alignment_layer = decoder.layers - 1};
  for (int head = 0; head < decoder.attention.heads; ++head) options.alignment_heads.add(head);
  TokenScorer scorer(load_network(shared_file(), backend), backend, options);
  ListSource source(std::move(sentences));
  const std::atomic<bool> stop{false};
  Ids aligned;
  scorer.run(
      source,
      [&](const std::vector<ScoredSentence>& batch) {
        for (const ScoredSentence& scored : batch) {
          EXPECT_EQ(scored.aligned.size(), scored.sentence.target.size());
          EXPECT_TRUE(scored.log_probabilities.empty());
          for (const std::int32_t token : scored.aligned) {
            EXPECT_GE(token, 0);
            EXPECT_LT(token, std::ssize(scored.sentence.ids));
          }
          aligned.insert(aligned.end(), scored.aligned.begin(), scored.aligned.end());
        }
      },
      stop);
  return aligned;
}

// Where two weights are nearly the same, either token may be found.
TEST_P(TransformerTest, TargetsAreAlignedInAnyBatchAsOnTheCpu) {
  const auto sources = shared_sources();
  const auto found = decode({sources.begin(), sources.begin() + 40}, 1, 2000);
  std::vector<Sentence> sentences;
  for (std::size_t line = 0; line < found.size(); ++line) {
    sentences.push_back({static_cast<std::int64_t>(line), sources[line]});
    sentences.back().target = found[line].front().ids;
  }
  const Ids whole = aligned_by(*backend, sentences, 4096),
            cut = aligned_by(*backend, sentences, 50),
            reference = aligned_by(*make_backend({}), sentences, 4096);
  const auto same_share = [](const Ids& a, const Ids& b) {
    std::size_t same = 0;
    for (std::size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
    return static_cast<double>(same) / static_cast<double>(a.size());
  };
  ASSERT_GT(whole.size(), 200u);
  ASSERT_EQ(cut.size(), whole.size());
  ASSERT_EQ(reference.size(), whole.size());
  EXPECT_GE(same_share(cut, whole), GetParam().cuda ? 1 : 0.99);
  EXPECT_GE(same_share(reference, whole), GetParam().type == DType::kFloat32 ? 0.97 : 0.9);
}

// These sources and targets are longer than any stored position and than the lengths that the model
// was trained for.
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
  const auto together = decode(tall, 2, 2000, 620);
  if (!GetParam().cuda)
    // In 620 tokens a GPU surely meets a tie.
    expect_same(together, alone);
  for (const auto& hypotheses : {alone, together}) {
    for (const auto& line : hypotheses) {
      ASSERT_FALSE(line.empty());
      for (const Hypothesis& hypothesis : line) EXPECT_TRUE(std::isfinite(hypothesis.score));
    }
  }
  EXPECT_NE(alone[0][0].sum, alone[1][0].sum);
}

// A run leaves nothing behind. The same model begins again with larger and with smaller sizes.
TEST_P(TransformerTest, BeginsAgain) {
  const auto all = shared_sources();
  const std::vector<Ids> sources(all.begin(), all.begin() + 30);
  const auto expected = decode(sources, 3, 200);
  decode(sources, 1, 1000);
  decode(sources, 5, 50, 3);
  expect_same(decode(sources, 3, 200), expected);
}

}  // namespace
}  // namespace xlate::test
