// Tests the runner with a table in the place of a model. What a line becomes does not depend on how
// it is scheduled, and the statistics are consistent.
#include "tests/runner_case.h"

namespace xlate::test::runner {
namespace {

INSTANTIATE_TEST_SUITE_P(, RunnerTest, testing::ValuesIn(backends_and_late_ones()), backend_name);

TEST_P(RunnerTest, LinesAreDecodedAsSearchSays) {
  const auto sentences = random_sentences(60, 30);
  // With one position, the same choices in another order would tie.
  table = random_table(GetParam().type, 40);
  int compared = 0;
  for (const int beams : {1, 4}) {
    const RunnerOptions options = options_of(beams, 64);
    const Results results = run(options, sentences);
    for (const Sentence& sentence : sentences) {
      const int limit =
          std::min(40, static_cast<int>(1.5 * static_cast<double>(sentence.ids.size())) + 10);
      const ReferenceResult expected =
          ReferenceSearch(table, options.rules, limit, sentence.ids[0] % kKinds).run();
      if (expected.margin < decidable(GetParam())) continue;
      ++compared;
      const Line& decoded = results.at(sentence.line);
      EXPECT_EQ(decoded.source_tokens, static_cast<std::int64_t>(sentence.ids.size()));
      ASSERT_EQ(decoded.hypotheses.size(), expected.hypotheses.size());
      EXPECT_EQ(decoded.hypotheses[0].ids, expected.hypotheses[0].ids) << "line " << sentence.line;
      EXPECT_EQ(decoded.hit_limit,
                expected.hypotheses[0].length == limit && !expected.hypotheses[0].ended);
    }
  }
  // There are 120 cases.
  EXPECT_GT(compared, 100);
}

TEST_P(RunnerTest, TheLimitOfASentence) {
  Lab lab(GetParam());
  TableModel model(lab, table);
  RunnerOptions options = options_of(1, 16);
  const Runner runner(*lab, model, options);
  EXPECT_EQ(runner.limit_of(1), 11);
  EXPECT_EQ(runner.limit_of(3), 14);
  EXPECT_EQ(runner.limit_of(20), 40);
  EXPECT_EQ(runner.limit_of(1'000'000'000), 40);
  options.max_length = 1;
  EXPECT_EQ(Runner(*lab, model, options).limit_of(5), 1);
}

// A sentence's own forced first token takes the place of the run's, in whichever slot it stands.
TEST_P(RunnerTest, TheFirstTokenOfASentence) {
  auto sentences = random_sentences(24, 20);
  for (std::size_t i = 0; i < sentences.size(); ++i)
    sentences[i].forced_first = i % 4 == 0 ? -1 : static_cast<std::int32_t>(i % 4);
  for (const int beams : {1, 3}) {
    RunnerOptions options = options_of(beams, 64);
    options.rules.forced_first = 4;
    for (const auto& [line, found] : run(options, sentences)) {
      const auto own = static_cast<std::int32_t>(line % 4);
      for (const Hypothesis& hypothesis : found.hypotheses)
        EXPECT_EQ(hypothesis.ids.at(0), own > 0 ? own : 4) << "line " << line;
    }
  }
}

TEST_P(RunnerTest, OrderBudgetAndRefillChangeNothing) {
  auto sentences = random_sentences(80, 30);
  for (const int beams : {1, 3}) {
    // Sentences are decoded one at a time.
    const Results expected = run(options_of(beams, 1, false), sentences);
    EXPECT_EQ(statistics.batches, 80);
    for (const bool refill : {true, false}) {
      for (const std::int64_t budget : {1, 7, 30, 100, 5000}) {
        expect_same(run(options_of(beams, budget, refill), sentences), expected);
        EXPECT_LE(largest_batch, std::max<std::int64_t>(budget, 30));
        EXPECT_LE(most_source_tokens, std::max<std::int64_t>(budget, 30));
        std::shuffle(sentences.begin(), sentences.end(), Random(static_cast<unsigned>(budget)));
      }
    }
  }
}

TEST_P(RunnerTest, RefillKeepsRowsFull) {
  const auto sentences = random_sentences(200, 30);
  run(options_of(2, 240, false), sentences);
  const RunnerStatistics plain = statistics;
  run(options_of(2, 240, true), sentences);
  // Where outcomes come three steps late, slots stand empty for as long.
  if (steps_ahead <= 1) {
    EXPECT_LT(statistics.steps, plain.steps);
  }
  EXPECT_GT(statistics.batches, plain.batches);
  EXPECT_GT(most_rows, 2 * 10);
}

TEST_P(RunnerTest, TheBudgetIsUsedToTheLastToken) {
  auto sentences = random_sentences(40, 30);
  for (Sentence& sentence : sentences) sentence.ids.resize(10);
  for (const bool refill : {true, false}) {
    run(options_of(2, 80, refill), sentences);
    EXPECT_EQ(most_source_tokens, 80);
    EXPECT_EQ(most_rows, GetParam().cuda ? most_rows : 2 * 8);
  }
}

// By default the arrays of search take at most an eighth of the memory that caches may take.
TEST_P(RunnerTest, SlotsAreAsManyAsMemoryHas) {
  struct Small final : UnrecordedBackend {
    using UnrecordedBackend::UnrecordedBackend;
    std::size_t cache_budget() const override {
      return static_cast<std::size_t>(
                 8 * 3 * Search::bytes_per_slot({.beams = 2, .never_chosen = {}}, 40)) +
             7;
    }
  };
  BackendUnderTest small = GetParam();
  small.make = [make = small.make] { return std::make_unique<Small>(make()); };
  Lab lab(small);
  TableModel model(lab, table);
  Runner runner(*lab, model, options_of(2, 240));
  EXPECT_EQ(model.capacity().slots, 3);
  ListSource source(random_sentences(20, 30));
  int decoded = 0;
  runner.run(
      source, [&](const std::vector<Decoded>& lines) { decoded += static_cast<int>(lines.size()); },
      stop);
  EXPECT_EQ(decoded, 20);
}

// There are more rows than a backend may compute at once.
TEST_P(RunnerTest, ManyRowsAtOnce) {
  const auto sentences = random_sentences(150, 8);
  const Results expected = run(options_of(5, 8), sentences);
  expect_same(run(options_of(5, 8 * 150), sentences), expected);
  EXPECT_GT(most_rows, 512);
}

TEST_P(RunnerTest, ASentenceLargerThanTheBudgetGoesAlone) {
  auto sentences = random_sentences(20, 30);
  sentences[7].ids.resize(30);
  run(options_of(2, 4), sentences);
  EXPECT_EQ(largest_batch, 30);
  EXPECT_LE(most_rows, 2);
}

TEST_P(RunnerTest, WhereCachesAreFullItWaits) {
  const auto sentences = random_sentences(60, 30);
  const Results expected = run(options_of(2, 200), sentences);
  const std::int64_t rows = most_rows;
  // The longest sentence needs 40.
  for (const std::int64_t room : {0, 40, 41, 90, 150}) {
    for (const bool refill : {true, false}) {
      expect_same(run(options_of(2, 200, refill), sentences, room), expected);
      EXPECT_LT(most_rows, rows);
      // Otherwise finished sentences leave later than the forecast expects.
      if (steps_ahead == 0) {
        EXPECT_EQ(statistics.preempted, 0);
      }
    }
  }
}

// A budget far above what the caches hold changes nothing, because a finished sentence makes room
// at once.
TEST_P(RunnerTest, ScarceCachesAreRefilled) {
  const auto sentences = random_sentences(300, 30);
  run(options_of(2, 200), sentences, 150);
  const std::int64_t steps = statistics.steps;
  run(options_of(2, 8000), sentences, 150);
  EXPECT_LE(statistics.steps, steps + steps / 10);
}

// Sentences that outgrow the free pages begin again, and those that have run longest go on.
TEST_P(RunnerTest, CachesRunDry) {
  const auto sentences = random_sentences(60, 30);
  caches_grow = true;
  const Results expected = run(options_of(2, 5000), sentences);
  EXPECT_EQ(statistics.preempted, 0);
  std::int64_t preempted = 0;
  for (const std::int64_t room : {0, 41, 60, 150, 300}) {
    for (const bool refill : {true, false}) {
      expect_same(run(options_of(2, 200, refill), sentences, room), expected);
      preempted += statistics.preempted;
      EXPECT_EQ(statistics.target_tokens, [&] {
        std::int64_t tokens = 0;
        for (const auto& [line, decoded] : expected) tokens += decoded.hypotheses[0].length;
        return tokens;
      }());
    }
  }
  EXPECT_GT(preempted, 0);
}

// The steps of a sentence count from its admission until its end is seen. For a preempted sentence
// only the steps since its last admission count, and no step counts in which it waited.
TEST_P(RunnerTest, CachesLearnHowLongSentencesTook) {
  caches_grow = true;
  const auto sentences = random_sentences(200, 30);
  for (const auto& [room, factor] : {std::pair{kPlenty, 3.0}, std::pair{std::int64_t{60}, 0.1}}) {
    RunnerOptions options = options_of(1, 100);
    options.policy.expected_factor = factor, options.policy.first_sentences = 10;
    const Results results = run(options, sentences, room);
    EXPECT_EQ(statistics.preempted > 0, room != kPlenty);
    LengthLine line(factor, 4, 24, 10, 11000);
    for (const auto& [number, decoded] : results)
      line.add(static_cast<double>(decoded.source_tokens), static_cast<double>(decoded.steps));
    EXPECT_NEAR(static_cast<double>(expected_of_20), line.at(20), steps_ahead + 1)
        << "room " << room;
    // There was something to learn.
    EXPECT_GT(std::abs(line.at(20) - (factor * 20 + 4)), 5);
  }
}

TEST_P(RunnerTest, DoesNotWaitForASourceWhileItHasWork) {
  const auto sentences = random_sentences(40, 30);
  const Results expected = run(options_of(2, 60), sentences);
  ListSource source(sentences);
  source.absent = [](int call) { return call % 3 != 0; };
  expect_same(run(options_of(2, 60), source), expected);
  // No sentence is found without waiting, so the runner decodes one sentence at a time.
  ListSource slow(sentences);
  slow.absent = [](int) { return true; };
  expect_same(run(options_of(2, 60), slow), expected);
  EXPECT_EQ(slow.waits, 41);
  EXPECT_EQ(statistics.batches, 40);
}

TEST_P(RunnerTest, NothingToDo) {
  ListSource source({});
  EXPECT_TRUE(run(options_of(2, 60), source).empty());
  EXPECT_EQ(source.waits, 1);
  EXPECT_EQ(statistics.steps, 0);
  EXPECT_TRUE(statistics.buckets.empty());
}

TEST_P(RunnerTest, StopsWhereItIs) {
  const auto sentences = random_sentences(60, 30);
  const Results expected = run(options_of(2, 60), sentences);
  ListSource source(sentences);
  int calls = 0;
  source.absent = [&](int) {
    stop = ++calls > 20;
    return false;
  };
  const Results results = run(options_of(2, 60), source);
  EXPECT_LT(results.size(), sentences.size());
  EXPECT_LT(source.taken(), sentences.size());
  for (const auto& [line, decoded] : results)
    EXPECT_EQ(decoded.hypotheses[0].ids, expected.at(line).hypotheses[0].ids);
  // The run is stopped before it begins.
  ListSource untouched(sentences);
  EXPECT_TRUE(run(options_of(2, 60), untouched).empty());
  EXPECT_EQ(untouched.taken(), 0u);
}

TEST_P(RunnerTest, StatisticsAddUp) {
  const auto sentences = random_sentences(100, 30);
  int ended_at_limit = 0;
  for (const auto& [beams, forced_end, max_length] : {std::tuple{1, -1, 40},
                                                      {1, 0, 40},
                                                      {3, -1, 40},
                                                      {3, 0, 40},
                                                      {1, -1, 2},
                                                      {3, -1, 2},
                                                      {1, -1, 1}}) {
    RunnerOptions options = options_of(beams, 80);
    options.max_length = max_length;
    options.max_length_factor = 0.3;
    options.rules.forced_end = forced_end;
    const Results results = run(options, sentences);
    RunnerStatistics::Bucket all;
    std::int64_t source_tokens = 0, with_end = 0, without_end = 0, hit_limit = 0;
    // The end of a sentence is seen late, unless it is at its limit.
    std::int64_t late_rows = 0;
    for (const auto& [line, decoded] : results) {
      const Hypothesis& best = decoded.hypotheses[0];
      source_tokens += decoded.source_tokens;
      with_end += best.length;
      without_end += static_cast<std::int64_t>(best.ids.size());
      EXPECT_EQ(best.length, static_cast<std::int64_t>(best.ids.size()) + best.ended);
      hit_limit += decoded.hit_limit;
      const int limit = std::min(
          max_length, static_cast<int>(0.3 * static_cast<double>(decoded.source_tokens)) + 10);
      late_rows += beams * std::min<std::int64_t>(steps_late(), limit - decoded.steps);
      ended_at_limit += best.length == limit && best.ended && forced_end < 0;
      EXPECT_EQ(decoded.hit_limit, best.length == limit && (forced_end == 0 || !best.ended));
    }
    EXPECT_EQ(statistics.source_tokens, source_tokens);
    EXPECT_EQ(statistics.target_tokens, with_end);
    EXPECT_EQ(statistics.target_tokens_without_end, without_end);
    EXPECT_EQ(statistics.hit_limit, hit_limit);
    EXPECT_GT(hit_limit, 0);
    for (std::size_t i = 0; i < statistics.buckets.size(); ++i) {
      const auto& bucket = statistics.buckets[i];
      std::int64_t lines = 0, tokens = 0;
      for (const auto& [line, decoded] : results) {
        const bool inside = (decoded.source_tokens - 1) / 8 == static_cast<std::int64_t>(i);
        lines += inside, tokens += inside ? decoded.source_tokens : 0;
      }
      EXPECT_EQ(bucket.lines, lines);
      EXPECT_EQ(bucket.source_tokens, tokens);
      all.lines += bucket.lines;
      all.target_tokens += bucket.target_tokens;
      all.row_steps += bucket.row_steps;
    }
    EXPECT_EQ(all.lines, 100);
    EXPECT_EQ(all.target_tokens, with_end);
    EXPECT_EQ(all.row_steps, statistics.rows_useful);
    EXPECT_LE(statistics.rows_useful, statistics.rows);
    // There are no empty groups.
    if (!GetParam().cuda) {
      EXPECT_EQ(statistics.rows, statistics.rows_useful + late_rows);
    }
    EXPECT_GE(statistics.rows, with_end);
    // The run has at most 10 slots.
    EXPECT_LE(statistics.rows, statistics.steps * beams * 10);
    EXPECT_GE(statistics.seconds.encode, 0);
    EXPECT_GT(statistics.seconds.decode, 0);
  }
  EXPECT_GT(ended_at_limit, 0);
}

}  // namespace
}  // namespace xlate::test::runner
