// Counts the rows that a run computes in vain. The backend here computes nothing: a step only
// counts the tokens of each sentence. It rounds row groups up and tells outcomes late, as a GPU
// does, and the budgets are an eighth of a GPU's.
#include <gtest/gtest.h>

#include "tests/runner_case.h"

namespace xlate::test {
namespace {

// A sentence is done when it has as many tokens as the list has for its line.
class CountingBackend final : public UnrecordedBackend {
 public:
  explicit CountingBackend(std::vector<std::int32_t> lengths)
      : UnrecordedBackend(std::make_unique<LateBackend>(make_backend({.threads = 1}), /*ahead=*/1)),
        lengths_(std::move(lengths)) {}

  std::size_t cache_budget() const override { return std::size_t{1} << 40; }
  std::int64_t padded_groups(std::int64_t groups) const override { return (groups + 7) / 8 * 8; }
  void start_slots(Queue& queue, const SearchRules& rules, std::span<const SlotStart> starts,
                   const SearchState& state) override {
    lines_.resize(static_cast<std::size_t>(state.slots));
    for (const SlotStart& start : starts) lines_[static_cast<std::size_t>(start.slot)] = start.line;
    UnrecordedBackend::start_slots(queue, rules, starts, state);
  }
  void search_step(Queue&, Tensor, const Projection&, const SearchRules& rules,
                   const StepRows& rows, const SearchState& state) override {
    for (std::int64_t group = 0; group < rows.groups; ++group) {
      const std::int32_t slot = rows.slots[group];
      if (slot < 0 || state.done[slot]) continue;
      const std::int32_t length = ++state.length[slot];
      ASSERT_LE(length, state.limit[slot]);
      const std::int64_t line = lines_[static_cast<std::size_t>(slot)];
      if (length < lengths_[static_cast<std::size_t>(line)]) continue;
      state.done[slot] = 1;
      state.finished_count[slot] = 1;
      state.finished[slot * state.beams] = {0, 0, length, {rules.ends.front(), 0}};
    }
  }

 private:
  std::vector<std::int32_t> lengths_;  // They are by line.
  std::vector<std::int64_t> lines_;    // They are by slot.
};

class CountingModel final : public SequenceModel {
 public:
  CacheShape cache_shape() const override { return {}; }
  void allocate(const Capacity&) override {}
  void begin(const PagedCaches&) override {}
  std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence>) override {
    return std::make_unique<Encoded>();
  }
  void install(Queue&, const Encoded&, std::int64_t, std::span<const std::int32_t>) override {}
  void step(const StepRows& rows, Search& search) override {
    search.step(Tensor{}, rows, Projection{});
  }
};

struct Lengths {
  std::string name;
  // Returns the length of a target by that of its source.
  std::function<std::int32_t(Random&, std::int32_t)> target;
  // Every sentence has its length as its limit, as with XLATE_TEST_LENGTHS.
  bool are_limits = false;
  // These are the largest shares of idle rows that are allowed at beam 4 and in greedy search.
  double idle[2] = {};
};
void PrintTo(const Lengths& lengths, std::ostream* out) { *out << lengths.name; }

class IdleRowsTest : public testing::TestWithParam<Lengths> {};

// Sentences of 4 to 80 tokens come sorted in windows, as app/windows.cpp gives them.
std::vector<Sentence> sorted_sentences(int count, Random& random) {
  std::vector<Sentence> sentences;
  for (int line = 0; line < count; ++line) {
    const int tokens = std::min(whole(random, 4, 80), whole(random, 4, 80));
    sentences.push_back({.line = line, .ids = std::vector<std::int32_t>(tokens)});
  }
  bool longest_first = true;
  for (std::size_t first = 0, size = 250; first < sentences.size();
       first += size, size *= 2, longest_first = !longest_first) {
    std::sort(
        sentences.begin() + static_cast<std::ptrdiff_t>(first),
        sentences.begin() + static_cast<std::ptrdiff_t>(std::min(first + size, sentences.size())),
        [&](const Sentence& a, const Sentence& b) {
          return longest_first ? a.ids.size() > b.ids.size() : a.ids.size() < b.ids.size();
        });
  }
  return sentences;
}

TEST_P(IdleRowsTest, AreFew) {
  for (const int beams : {1, 4}) {
    Random random(7);
    const int count = beams == 1 ? 5600 : 1800;
    std::vector<Sentence> sentences = sorted_sentences(count, random);
    std::vector<std::int32_t> lengths(sentences.size());
    for (Sentence& sentence : sentences) {
      const auto tokens = static_cast<std::int32_t>(sentence.ids.size()),
                 length = std::clamp(GetParam().target(random, tokens), 1, 200);
      lengths[static_cast<std::size_t>(sentence.line)] = length;
      if (GetParam().are_limits) sentence.limit = length;
    }
    RunnerOptions options;
    options.policy = policy_for(true, 1);
    options.policy.most_rows /= 8, options.policy.encoder_tokens /= 8;
    options.rules = {.beams = beams, .ends = {0}, .never_chosen = {}};
    options.batch_tokens = policy_for(true, 1).batch_tokens(beams) / 8;
    options.longest_source = 80;
    options.max_length = 200, options.max_length_factor = 100;
    CountingBackend backend(lengths);
    CountingModel model;
    Runner runner(backend, model, options);
    runner::ListSource source(std::move(sentences));
    std::atomic<bool> stop{false};
    std::size_t decoded = 0;
    runner.run(
        source, [&](const std::vector<Decoded>& lines) { decoded += lines.size(); }, stop);
    EXPECT_EQ(decoded, lengths.size());
    const RunnerStatistics statistics = runner.statistics();
    std::int64_t tokens = 0;
    for (const std::int32_t length : lengths) tokens += length;
    EXPECT_EQ(statistics.target_tokens, tokens);
    EXPECT_EQ(statistics.rows_useful, tokens * beams);
    const double idle =
        1 - static_cast<double>(statistics.rows_useful) / static_cast<double>(statistics.rows);
    EXPECT_LT(idle, GetParam().idle[beams == 1]) << beams << " beams, " << statistics.preempted
                                                 << " preempted, " << statistics.steps << " steps";
    RecordProperty(std::to_string(beams) + "_beams_idle", std::to_string(idle));
  }
}

std::int32_t like_text(Random& random, std::int32_t tokens) {
  return tokens + 1 + whole(random, -tokens / 4, tokens / 4);
}
std::int32_t always_30(Random&, std::int32_t) { return 30; }
// No sentence is as long as a run expects at its beginning.
std::int32_t always_120(Random&, std::int32_t) { return 120; }
std::int32_t anything(Random& random, std::int32_t) { return whole(random, 1, 200); }

INSTANTIATE_TEST_SUITE_P(, IdleRowsTest,
                         testing::Values(Lengths{"LikeText", like_text, false, {0.05, 0.05}},
                                         Lengths{"Always30", always_30, false, {0.05, 0.05}},
                                         Lengths{"Imposed30", always_30, true, {0.02, 0.02}},
                                         Lengths{"Always120", always_120, false, {0.12, 0.12}},
                                         Lengths{"Anything", anything, false, {0.10, 0.10}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace xlate::test
