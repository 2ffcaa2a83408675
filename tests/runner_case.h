// Has the fixture of the runner's tests: a runner with a table in the place of a model, on
// sentences of random lengths.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "engine/runner.h"
#include "tests/late_backend.h"
#include "tests/search_reference.h"
#include "tests/table_model.h"

namespace xlate::test::runner {

inline constexpr int kKinds = 5, kVocabulary = 12;

// Gives the sentences of a list. `absent(n)` says whether the n-th call finds no sentence yet, if
// it is a call that does not wait.
class ListSource final : public SentenceInput {
 public:
  explicit ListSource(std::vector<Sentence> sentences) : sentences_(std::move(sentences)) {}

  const Sentence* next(bool wait) override {
    ++calls;
    if (wait) ++waits;
    if (!wait && absent && absent(calls)) return nullptr;
    return taken_ < sentences_.size() ? &sentences_[taken_] : nullptr;
  }
  Sentence take() override { return sentences_[taken_++]; }
  std::size_t taken() const { return taken_; }

  std::function<bool(int)> absent;
  int calls = 0, waits = 0;

 private:
  std::vector<Sentence> sentences_;
  std::size_t taken_ = 0;
};

// Returns sentences of 1 to `longest` tokens. The first token chooses the kind of a sentence.
inline std::vector<Sentence> random_sentences(int count, int longest, unsigned seed = 3) {
  Random random(seed);
  std::vector<Sentence> sentences;
  for (int line = 0; line < count; ++line) {
    sentences.push_back(
        {.line = line,
         .ids = std::vector<std::int32_t>(static_cast<std::size_t>(whole(random, 1, longest)))});
    for (std::int32_t& id : sentences.back().ids) id = whole(random, 0, 99);
  }
  return sentences;
}

inline Table random_table(DType type, int positions = 1) {
  Random random(1);
  Table table(kVocabulary, positions, kKinds);
  for (float& logit : table.logits) logit = uniform(random, -3, 3);
  for (int place = 0; place < table.places(); ++place) {
    const int kind = place / (positions * kVocabulary);
    // Translations become longer from the first kind to the last.
    table.logits[static_cast<std::size_t>(place * kVocabulary)] -= static_cast<float>(kind) - 1;
  }
  table.round_to(type);
  return table;
}

inline RunnerOptions options_of(int beams, std::int64_t batch_tokens, bool refill = true) {
  RunnerOptions options;
  options.rules.beams = beams;
  options.rules.start = 1;
  options.rules.ends = {0};
  options.batch_tokens = batch_tokens;
  options.longest_source = 30;
  options.max_length = 40;
  options.max_length_factor = 1.5;
  options.refill = refill;
  // With pages of one token the free space is counted in tokens.
  options.policy.page_tokens = 1;
  return options;
}

struct Line {
  std::int64_t source_tokens;
  std::vector<Hypothesis> hypotheses;
  bool hit_limit;
  std::int64_t steps;
};
using Results = std::map<std::int64_t, Line>;
inline constexpr std::int64_t kPlenty = -1;

struct RunnerTest : OnBackend {
  // Decodes all sentences and expects each line exactly once. The caches have room for `room`
  // target tokens, but always for the longest sentence.
  Results run(RunnerOptions options, ListSource& source, std::int64_t room = kPlenty) {
    // The caches then expect no sentence to end before its limit.
    if (!caches_grow) {
      options.policy.expected_factor = 100;
      options.policy.first_sentences = options.policy.most_sentences = 1e12;
    }
    options.policy.in_use =
        room == kPlenty ? 10 : (static_cast<double>(room) - 0.5) / expected_tokens(options);
    Lab lab(GetParam());
    TableModel model(lab, table);
    Runner runner(*lab, model, options);
    const std::int64_t source_pages = runner.caches().free_source_pages(),
                       own_pages = runner.caches().free_self_pages();
    if (room != kPlenty) {
      EXPECT_EQ(own_pages, std::max<std::int64_t>(room, runner.limit_of(options.longest_source)));
    }
    Results results;
    runner.run(
        source,
        [&](std::vector<Decoded> lines) {
          for (Decoded& decoded : lines) {
            const std::int64_t line = decoded.sentence.line;
            Line found{std::ssize(decoded.sentence.ids), outcome_of(decoded.result).hypotheses,
                       decoded.hit_limit, decoded.result.steps()};
            EXPECT_TRUE(results.emplace(line, std::move(found)).second)
                << "line " << line << " twice";
          }
        },
        stop);
    statistics = runner.statistics();
    largest_batch = model.largest_batch;
    most_rows = model.most_rows;
    most_source_tokens = model.most_source_tokens;
    if (!stop) {
      EXPECT_EQ(runner.caches().free_source_pages(), source_pages);
      EXPECT_EQ(runner.caches().free_self_pages(), own_pages);
    }
    const std::vector<std::int32_t> ids(20);
    expected_of_20 = runner.caches().expected_tokens({ids, 1000});
    steps_ahead = lab->steps_ahead();
    return results;
  }
  // Returns the number of target tokens that the sentences in flight are expected to need at their
  // ends, in steps of a tenth.
  double expected_tokens(RunnerOptions options) {
    Lab lab(GetParam());
    TableModel model(lab, table);
    options.policy.in_use = 10;
    return static_cast<double>(Runner(*lab, model, options).caches().free_self_pages()) /
           options.policy.in_use;
  }
  Results run(const RunnerOptions& options, const std::vector<Sentence>& sentences,
              std::int64_t room = kPlenty) {
    ListSource source(sentences);
    Results results = run(options, source, room);
    EXPECT_EQ(results.size(), sentences.size());
    return results;
  }

  // Returns how many steps late a CPU backend tells that a sentence is done. The backend "late3" is
  // 3 steps late.
  static int steps_late() {
    return GetParam().name.starts_with("late") ? GetParam().name.back() - '0' : 0;
  }

  Table table = random_table(GetParam().type);
  std::atomic<bool> stop{false};
  bool caches_grow = false;
  RunnerStatistics statistics;
  std::int64_t largest_batch = 0, most_rows = 0, most_source_tokens = 0;
  // Counts the target tokens expected for a sentence of 20 source tokens after the run.
  std::int64_t expected_of_20 = 0;
  int steps_ahead = 0;
};

// The results are equal to the bit, because products with one-hot rows are exact in any batch.
inline void expect_same(const Results& found, const Results& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [line, decoded] : expected) {
    const Line& other = found.at(line);
    EXPECT_EQ(other.source_tokens, decoded.source_tokens);
    EXPECT_EQ(other.hit_limit, decoded.hit_limit);
    ASSERT_EQ(other.hypotheses.size(), decoded.hypotheses.size());
    for (std::size_t i = 0; i < decoded.hypotheses.size(); ++i) {
      ASSERT_EQ(other.hypotheses[i].ids, decoded.hypotheses[i].ids)
          << "line " << line << ", hypothesis " << i;
      ASSERT_EQ(other.hypotheses[i].score, decoded.hypotheses[i].score);
    }
  }
}

}  // namespace xlate::test::runner
