// Tests the kernel of the row rules, and the selection behind it, against the CPU backend's
// functions, on random states of search.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/cpu/row_rules.h"
#include "engine/cpu/slot_search.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using cuda::check;

/// Holds an array on the device that is copied from and to the host.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : size_(values.size()) {
    check(cudaMalloc(&data_, std::max<std::size_t>(1, size_) * sizeof(T)));
    check(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  T* get() const { return static_cast<T*>(data_); }
  std::vector<T> read() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

template <class T>
std::vector<T> filled(std::int64_t count, const std::function<T()>& value) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& element : values) element = value();
  return values;
}

/// Holds a random state of three slots, of which the last is done, and the logits of the rows of a
/// step. The groups of the step belong to slot 2, to no slot, to slot 0 and to slot 1.
struct RulesCase {
  static constexpr std::int32_t kSlots = 3, kLongest = 300, kLongestBefore = 40;
  SearchRules rules;
  std::int64_t vocabulary, stride;
  std::vector<std::int32_t> groups{2, -1, 0, 1}, token{}, length{}, limit{},
      forced_first{-1, -1, -1}, done{0, 0, 1}, start{}, prompt{}, before{}, counts{};
  std::vector<float> score{}, logits{}, bias{};
  std::vector<Node> history{};
  std::vector<std::uint8_t> ancestor{};
  std::vector<Finished> finished{};

  std::int64_t rows() const { return std::ssize(groups) * rules.beams; }
  SearchState state() {
    return {.token = token.data(),
            .score = score.data(),
            .length = length.data(),
            .limit = limit.data(),
            .forced_first = forced_first.data(),
            .start = start.data(),
            .prompt = prompt.empty() ? nullptr : prompt.data(),
            .tokens_before = prompt.empty() ? nullptr : before.data(),
            .done = done.data(),
            .history = history.data(),
            .ancestor = ancestor.data(),
            .finished = finished.data(),
            .finished_count = counts.data(),
            .slots = kSlots,
            .beams = rules.beams,
            .longest = kLongest,
            .longest_before = prompt.empty() ? 0 : kLongestBefore};
  }
};

SearchRules random_rules(Random& random, int vocabulary) {
  constexpr float kPenalties[] = {1, 1.3f, 0.8f};
  SearchRules rules{.beams = whole(random, 0, 1) ? 1 : whole(random, 2, 9),
                    .start = whole(random, 0, vocabulary - 1),
                    .ends = {1, 3, 4},
                    .renormalize = whole(random, 0, 1) == 1,
                    .never_chosen = {0, 4}};
  rules.ends.resize(static_cast<std::size_t>(whole(random, 0, 3)));
  rules.min_length = whole(random, 0, 12);
  rules.no_repeat_ngram = whole(random, 0, 3);
  rules.repetition_penalty = kPenalties[whole(random, 0, 2)];
  if (!rules.has_row_rules()) rules.min_length = 1;
  return rules;
}

RulesCase random_case(unsigned seed) {
  Random random(seed);
  const int vocabulary = seed % 3 ? whole(random, 5, 20) : whole(random, 500, 1300);
  RulesCase test{.rules = random_rules(random, vocabulary),
                 .vocabulary = vocabulary,
                 .stride = vocabulary + whole(random, 0, 9)};
  const std::int64_t beams = test.rules.beams, slots = RulesCase::kSlots;
  const auto id = [&] { return whole(random, 0, vocabulary - 1); };
  const auto beam = [&] { return whole(random, 0, static_cast<int>(beams) - 1); };
  const auto logit = [&] { return uniform(random, -6, 6); };
  test.token = filled<std::int32_t>(slots * beams, id);
  test.length = {seed % 4 ? whole(random, 0, 14) : RulesCase::kLongest - 1, whole(random, 0, 5), 3};
  test.limit = {RulesCase::kLongest, RulesCase::kLongest, RulesCase::kLongest};
  test.start = filled<std::int32_t>(slots, id);
  test.before = {RulesCase::kLongestBefore, 0, 5};
  if (seed % 2) test.prompt = filled<std::int32_t>(slots * RulesCase::kLongestBefore, id);
  test.score.resize(static_cast<std::size_t>(slots * beams));
  test.finished.resize(static_cast<std::size_t>(slots * beams));
  test.counts.resize(static_cast<std::size_t>(slots));
  test.history = filled<Node>(slots * RulesCase::kLongest * beams, [&] {
    return Node{id(), beam()};
  });
  test.ancestor = filled<std::uint8_t>(slots * RulesCase::kLongest * beams,
                                       [&] { return static_cast<std::uint8_t>(beam()); });
  test.logits = filled<float>(test.rows() * test.stride, logit);
  if (whole(random, 0, 1)) test.bias = filled<float>(vocabulary, logit);
  return test;
}

struct Found {
  std::vector<float> logits, values;
  std::vector<std::int32_t> tokens;
};

/// Runs both kernels over the rows in two parts, of which the first has `first_rows` rows.
Found run(RulesCase& test, std::int64_t first_rows) {
  const SearchRules& rules = test.rules;
  const OnDevice<std::int32_t> groups(test.groups), token(test.token), length(test.length),
      done(test.done), never(rules.never_chosen), ends(rules.ends), start(test.start),
      prompt(test.prompt), before(test.before),
      ids(std::vector<std::int32_t>(static_cast<std::size_t>(
          test.rows() * (RulesCase::kLongestBefore + RulesCase::kLongest))));
  const OnDevice<Node> history(test.history);
  const OnDevice<std::uint8_t> ancestor(test.ancestor);
  const OnDevice<float> logits(test.logits), bias(test.bias);
  const auto count = static_cast<std::size_t>(test.rows() * rules.candidates());
  const OnDevice<float> values{std::vector<float>(count)};
  const OnDevice<std::int32_t> tokens{std::vector<std::int32_t>(count)};
  cuda::RulesView view{};
  view.beams = rules.beams, view.start = rules.start, view.renormalize = rules.renormalize;
  view.end = rules.ends.empty() ? -1 : rules.ends[0];
  view.other_ends = ends.get() + 1;
  view.other_ends_count = std::max(0, static_cast<int>(rules.ends.size()) - 1);
  view.never_chosen = never.get(), view.never_chosen_count = 2;
  view.min_length = rules.min_length, view.no_repeat_ngram = rules.no_repeat_ngram;
  view.repetition_penalty = rules.repetition_penalty, view.has_row_rules = true;
  SearchState state = test.state();
  state.token = token.get(), state.length = length.get(), state.done = done.get();
  state.history = history.get(), state.ancestor = ancestor.get();
  state.start = start.get();
  if (state.prompt) state.prompt = prompt.get(), state.tokens_before = before.get();
  const cuda::RowRules row_rules{
      {groups.get(), std::ssize(test.groups), rules.beams}, state, ids.get()};
  const auto part = [&](std::int64_t first, std::int64_t rows) {
    float* of_rows = logits.get() + first * test.stride;
    cuda::apply_row_rules(of_rows, test.stride, test.vocabulary,
                          test.bias.empty() ? nullptr : bias.get(), view, row_rules, first, rows,
                          nullptr);
    cuda::select_rows(of_rows, test.stride, test.vocabulary, nullptr, view, first, rows,
                      {values.get(), tokens.get(), rules.candidates()}, nullptr);
  };
  part(0, first_rows);
  part(first_rows, test.rows() - first_rows);
  check(cudaGetLastError());
  check(cudaDeviceSynchronize());
  return {logits.read(), values.read(), tokens.read()};
}

/// Compares one row with the CPU backend's.
void expect_row(RulesCase& test, const Found& found, std::int64_t row) {
  const std::int64_t beams = test.rules.beams, count = test.rules.candidates();
  const std::int32_t slot = test.groups[static_cast<std::size_t>(row / beams)];
  const auto first = test.logits.begin() + row * test.stride;
  std::vector<float> expected(first, first + test.vocabulary);
  if (slot < 0 || test.done[static_cast<std::size_t>(slot)]) {
    EXPECT_TRUE(
        std::equal(expected.begin(), expected.end(), found.logits.begin() + row * test.stride));
    return;
  }
  for (std::size_t v = 0; v < test.bias.size(); ++v) expected[v] += test.bias[v];
  const SearchState state = test.state();
  const cpu::SlotSearch search(test.rules, state, slot);
  cpu::apply_row_rules(test.rules, search.ids_of(row % beams), search.generated(), expected);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(row * count + i);
    // The value of each candidate is the CPU's, and the candidates are in order.
    const auto allowed = std::count_if(expected.begin(), expected.end(),
                                       [](float value) { return value > -INFINITY; });
    if (i >= allowed) {
      EXPECT_EQ(found.values[at], -INFINITY);
      continue;
    }
    std::vector<float> sorted = expected;
    std::nth_element(sorted.begin(), sorted.begin() + i, sorted.end(), std::greater<>());
    EXPECT_NEAR(found.values[at], sorted[static_cast<std::size_t>(i)], 2e-5);
    EXPECT_NEAR(found.values[at], expected[static_cast<std::size_t>(found.tokens[at])], 2e-5);
  }
}

TEST(cuda_RowRulesKernel, AgreesWithTheCpu) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    RulesCase test = random_case(seed);
    const Found found = run(test, test.rows()), parts = run(test, 1 + seed % 3);
    for (std::int64_t row = 0; row < test.rows(); ++row) expect_row(test, found, row);
    // The bits of a row do not depend on the other rows of its launch.
    EXPECT_EQ(found.logits, parts.logits);
    EXPECT_EQ(found.values, parts.values);
    EXPECT_EQ(found.tokens, parts.tokens);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace xlate::test
