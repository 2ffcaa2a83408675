// Tests what the runner does with sentences without a hypothesis, and what it leaves where memory
// runs out.
#include "tests/runner_case.h"

namespace xlate::test::runner {
namespace {

class RunnerErrorsTest : public RunnerTest {};
INSTANTIATE_TEST_SUITE_P(, RunnerErrorsTest, testing::ValuesIn(backends_and_late_ones()),
                         backend_name);

TEST_P(RunnerErrorsTest, ASentenceWithoutAnyContinuationIsAnError) {
  RunnerOptions options = options_of(2, 16);
  for (int id = 0; id < kVocabulary; ++id) options.rules.never_chosen.push_back(id);
  Lab lab(GetParam());
  TableModel model(lab, table);
  Runner runner(*lab, model, options);
  ListSource source(random_sentences(1, 3));
  expect_error(
      [&] {
        runner.run(
            source, [](const std::vector<Decoded>&) {}, stop);
      },
      {"line 1", "no continuation", "rules of search forbid every token"});
}

// The runner hands over lines that were finished together with a broken line before it throws the
// error.
TEST_P(RunnerErrorsTest, AnErrorOfALineKeepsTheOthers) {
  RunnerOptions options = options_of(2, 300);
  options.max_length = 1;
  Lab lab(GetParam());
  TableModel model(lab, table);
  model.broken_kind = 1;
  Runner runner(*lab, model, options);
  std::vector<Sentence> sentences;
  for (std::int32_t line = 0; line < 3; ++line) sentences.push_back({.line = line, .ids = {line}});
  ListSource source(sentences);
  std::vector<std::int64_t> handed_over;
  expect_error(
      [&] {
        runner.run(
            source,
            [&](const std::vector<Decoded>& lines) {
              for (const Decoded& decoded : lines) handed_over.push_back(decoded.sentence.line);
            },
            stop);
      },
      {"line 2", "no continuation", name_of(lab.type()), "infinite or not a number"});
  std::sort(handed_over.begin(), handed_over.end());
  EXPECT_EQ(handed_over, (std::vector<std::int64_t>{0, 2}));
}

// Numbers that are not finite are an error also where hypotheses have ended before.
TEST_P(RunnerErrorsTest, NumbersThatAreNotFiniteAreAnErrorAtEveryStep) {
  for (const int beams : {1, 4}) {
    for (const int broken_from : {0, 1, 3}) {
      for (const bool ruled : {false, true}) {
        RunnerOptions options = options_of(beams, 300);
        // With four beams a hypothesis may end in the first step, and search goes on.
        if (beams == 1 || broken_from != 1) options.rules.ends = {};
        options.rules.no_repeat_ngram = ruled ? 9 : 0;
        options.max_length = 6;
        Lab lab(GetParam());
        TableModel model(lab, table);
        model.broken_kind = 1, model.broken_from = broken_from;
        Runner runner(*lab, model, options);
        ListSource source({{.line = 0, .ids = {0}}, {.line = 1, .ids = {1}}});
        try {
          runner.run(
              source, [](const std::vector<Decoded>&) {}, stop);
          ADD_FAILURE() << "no error";
        } catch (const NoContinuation& error) {
          EXPECT_TRUE(error.not_finite);
          EXPECT_TRUE(std::string_view(error.what()).starts_with("line 2: ")) << error.what();
        }
      }
    }
  }
}

TEST_P(RunnerErrorsTest, OverflowsAreHandedOverIfTheOptionsSaySo) {
  for (const bool ruled : {false, true}) {
    for (const int beams : {1, 4}) {
      RunnerOptions options = options_of(beams, 300);
      options.rules.no_repeat_ngram = ruled ? 9 : 0;
      options.max_length = 6;
      options.hands_over_overflows = true;
      Lab lab(GetParam());
      TableModel model(lab, table);
      model.broken_kind = 1;
      Runner runner(*lab, model, options);
      ListSource source(
          {{.line = 0, .ids = {0}}, {.line = 1, .ids = {1}}, {.line = 2, .ids = {2}}});
      std::map<std::int64_t, bool> overflows;
      runner.run(
          source,
          [&](const std::vector<Decoded>& lines) {
            for (const Decoded& decoded : lines)
              overflows[decoded.sentence.line] = decoded.result.not_finite();
          },
          stop);
      EXPECT_EQ(overflows, (std::map<std::int64_t, bool>{{0, false}, {1, true}, {2, false}}));
    }
  }
}

// Whatever a runner has taken from its input and not handed over can be decoded by another one.
TEST_P(RunnerErrorsTest, SentencesThatWereNotFinishedCanBeTaken) {
  RunnerOptions options = options_of(3, 20);
  options.max_length = 9;
  std::vector<Sentence> sentences;
  for (std::int32_t line = 0; line < 60; ++line)
    sentences.push_back({.line = line, .ids = {line % 5, 1, 2}});
  std::map<std::int64_t, std::vector<std::int32_t>> expected;
  for (const std::int64_t out_of_memory_at : {0, 1, 2, 7, 20}) {
    Lab lab(GetParam());
    std::map<std::int64_t, std::vector<std::int32_t>> found;
    const auto take = [&](const std::vector<Decoded>& lines) {
      for (const Decoded& decoded : lines) {
        const auto ids = decoded.result.hypotheses(1).at(0).ids;
        EXPECT_TRUE(found.emplace(decoded.sentence.line, ids).second) << "a line comes twice";
      }
    };
    ListSource source(sentences);
    std::vector<Sentence> unfinished;
    {
      TableModel model(lab, table);
      model.out_of_memory_at = out_of_memory_at;
      Runner runner(*lab, model, options);
      try {
        runner.run(source, take, stop);
        EXPECT_EQ(out_of_memory_at, 0);
      } catch (const OutOfMemory&) {
        unfinished = runner.take_unfinished();
        EXPECT_FALSE(unfinished.empty());
      }
    }
    ListSource again(unfinished);
    for (ListSource* input : {&again, &source}) {
      TableModel model(lab, table);
      Runner(*lab, model, options).run(*input, take, stop);
    }
    if (out_of_memory_at == 0) expected = found;
    EXPECT_EQ(found, expected) << "step " << out_of_memory_at;
  }
}

}  // namespace
}  // namespace xlate::test::runner
