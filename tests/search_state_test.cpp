// Tests start_slots, search_step and collect on a state whose arrays are filled with a known
// pattern and surrounded by guard bytes. The test compares what each step leaves in the state with
// the result of the CPU backend, and checks that slots which take no part stay unchanged. The
// meaning of the rules is tested in search_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/search_reference.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

constexpr std::int64_t kSlots = 7, kLongest = 8;
constexpr int kSteps = 6;
constexpr std::int32_t kPoison = 0x5a5a5a5a;
// Slots 1, 3 and 5 take no part.
const Ints kStarted{4, 0, 6, 2}, kGroups{4, -1, 0, 6, 2};
// Two of the sentences have a forced first token.
constexpr std::int32_t kStart = 2;
const std::vector<SlotStart> kStarts{
    {4, 3, -1, kStart}, {0, 5, 3, kStart}, {6, 2, -1, kStart}, {2, 7, 0, kStart}};

struct Shape {
  int beams;
  std::int64_t width, vocabulary;
  bool bias;
};
constexpr Shape kShapes[] = {{1, 7, 33, true},
                             {1, 64, 700, false},
                             {2, 33, 130, false},
                             {4, 64, 701, true},
                             {5, 128, 1100, true}};

// A snapshot is the search state, copied to the host.
struct Snapshot {
  Ints token, length, done, finished_count;
  std::vector<float> score;
  std::vector<Node> history;
  std::vector<std::uint8_t> ancestor;
  std::vector<Finished> finished;
};

template <class T>
std::vector<T> poison(std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  std::memset(static_cast<void*>(values.data()), 0x5a, values.size() * sizeof(T));
  return values;
}

class Guarded {
 public:
  Guarded(Lab& lab, const Shape& shape) : lab_(lab), shape_(shape) {
    const std::int64_t beam_rows = kSlots * shape.beams;
    state_ = {.token = lab.put(poison<std::int32_t>(beam_rows)),
              .score = lab.put(poison<float>(beam_rows)),
              .length = lab.put(poison<std::int32_t>(kSlots)),
              .limit = lab.put(poison<std::int32_t>(kSlots)),
              .forced_first = lab.put(poison<std::int32_t>(kSlots)),
              .start = lab.put(poison<std::int32_t>(kSlots)),
              .done = lab.put(poison<std::int32_t>(kSlots)),
              .history = lab.put(poison<Node>(beam_rows * kLongest)),
              .ancestor = lab.put(poison<std::uint8_t>(beam_rows * kLongest)),
              .finished = lab.put(poison<Finished>(beam_rows)),
              .finished_count = lab.put(poison<std::int32_t>(kSlots)),
              .slots = kSlots,
              .beams = shape.beams,
              .longest = kLongest};
    rules_ = {.beams = shape.beams,
              .early_stopping = EarlyStopping::kNever,
              .start = kStart,
              .ends = {1},
              .never_chosen = {static_cast<std::int32_t>(shape.vocabulary - 1)}};
  }

  /// Returns the state after the start and after each step. All numbers are exact in `type`, so
  /// that every backend multiplies the same numbers.
  std::vector<Snapshot> snapshots(DType type) {
    Random random(static_cast<unsigned>(shape_.vocabulary));
    const auto numbers = [&](std::int64_t rows, std::int64_t columns, float size) {
      Matrix matrix(rows, columns);
      for (double& value : matrix.values) value = rounded(type, uniform(random, -size, size));
      return matrix;
    };
    Projection projection{{lab_.put_weight(numbers(shape_.vocabulary, shape_.width, 1)), {}}};
    if (shape_.bias)
      projection.linear.bias = lab_.put(numbers(1, shape_.vocabulary, 1), DType::kFloat32);
    const StepRows rows{lab_.put(kGroups), std::ssize(kGroups), shape_.beams};
    lab_->start_slots(lab_.queue(), rules_, kStarts, state_);
    std::vector<Snapshot> all{snapshot()};
    for (int n = 0; n < kSteps; ++n) {
      const Tensor hidden =
          lab_.put(numbers(rows.rows(), shape_.width, 2), lab_.type(), n % 2 ? 3 : 0);
      lab_->search_step(lab_.queue(), hidden, projection, rules_, rows, state_);
      all.push_back(snapshot());
    }
    return all;
  }
  /// Returns the records of the slots that were started.
  std::vector<std::byte> records() {
    const auto ticket = lab_->collect(lab_.queue(), kStarted, state_);
    const auto bytes = ticket->wait();
    return {bytes.begin(), bytes.end()};
  }

 private:
  Snapshot snapshot() {
    const std::int64_t beam_rows = kSlots * shape_.beams;
    return {lab_.array<std::int32_t>(state_.token, beam_rows),
            lab_.array<std::int32_t>(state_.length, kSlots),
            lab_.array<std::int32_t>(state_.done, kSlots),
            lab_.array<std::int32_t>(state_.finished_count, kSlots),
            lab_.array<float>(state_.score, beam_rows),
            lab_.array<Node>(state_.history, beam_rows * kLongest),
            lab_.array<std::uint8_t>(state_.ancestor, beam_rows * kLongest),
            lab_.array<Finished>(state_.finished, beam_rows)};
  }

  Lab& lab_;
  Shape shape_;
  SearchState state_;
  SearchRules rules_;
};

class SearchStateTest : public OnBackend {
 protected:
  Lab lab{GetParam()}, reference{backends().back()};
  const double near = decidable(GetParam());

  void expect_slot(const Snapshot& found, const Snapshot& expected, std::int64_t slot,
                   std::int64_t beams) {
    const auto s = static_cast<std::size_t>(slot), first = static_cast<std::size_t>(slot * beams),
               k = static_cast<std::size_t>(beams);
    ASSERT_EQ(found.length[s], expected.length[s]);
    ASSERT_EQ(found.done[s] != 0, expected.done[s] != 0);
    ASSERT_EQ(found.finished_count[s], expected.finished_count[s]);
    for (std::size_t i = first; i < first + static_cast<std::size_t>(expected.finished_count[s]);
         ++i) {
      EXPECT_NEAR(found.finished[i].score, expected.finished[i].score, near);
      EXPECT_NEAR(found.finished[i].sum, expected.finished[i].sum, near);
      EXPECT_EQ(found.finished[i].length, expected.finished[i].length);
      EXPECT_EQ(found.finished[i].last.token, expected.finished[i].last.token);
      EXPECT_EQ(found.finished[i].last.parent, expected.finished[i].last.parent);
    }
    const std::int32_t length = expected.length[s],
                       rows = std::max(0, expected.done[s] ? length - 1 : length);
    const std::size_t tree = static_cast<std::size_t>(slot * kLongest * beams);
    for (std::size_t i = tree; i < tree + static_cast<std::size_t>(rows) * k; ++i) {
      ASSERT_EQ(found.history[i].token, expected.history[i].token) << "node " << i - tree;
      ASSERT_EQ(found.history[i].parent, expected.history[i].parent) << "node " << i - tree;
    }
    // The live hypotheses of a finished sentence are undefined.
    if (expected.done[s]) return;
    for (std::size_t i = first; i < first + k; ++i) {
      EXPECT_EQ(found.token[i], expected.token[i]);
      EXPECT_NEAR(found.score[i], expected.score[i], near + 1e-7 * std::fabs(expected.score[i]));
    }
    for (std::size_t i = tree; i < tree + static_cast<std::size_t>(rows) * k; ++i)
      ASSERT_EQ(found.ancestor[i], expected.ancestor[i]) << "ancestor " << i - tree;
  }
  static void expect_untouched(const Snapshot& found, std::int64_t beams) {
    for (const std::int64_t slot : {1, 3, 5}) {
      const auto s = static_cast<std::size_t>(slot);
      for (const std::int32_t value : {found.length[s], found.done[s], found.finished_count[s]})
        EXPECT_EQ(value, kPoison) << "slot " << slot;
      for (std::int64_t k = 0; k < beams; ++k) {
        const auto line = static_cast<std::size_t>(slot * beams + k);
        EXPECT_EQ(found.token[line], kPoison) << "slot " << slot;
        EXPECT_EQ(std::bit_cast<std::int32_t>(found.score[line]), kPoison) << "slot " << slot;
      }
      for (std::int64_t i = slot * kLongest * beams; i < (slot + 1) * kLongest * beams; ++i) {
        EXPECT_EQ(found.history[static_cast<std::size_t>(i)].token, kPoison) << "slot " << slot;
        EXPECT_EQ(found.ancestor[static_cast<std::size_t>(i)], 0x5a) << "slot " << slot;
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(, SearchStateTest, testing::ValuesIn(backends()), backend_name);

TEST_P(SearchStateTest, EachStepLeavesWhatTheCpuLeaves) {
  for (const Shape& shape : kShapes) {
    Guarded run(lab, shape), expected_run(reference, shape);
    const auto found = run.snapshots(lab.type()), expected = expected_run.snapshots(lab.type());
    for (std::size_t n = 0; n < expected.size(); ++n) {
      SCOPED_TRACE(fmt::format("{} beams, width {}, vocabulary {}, after {} steps", shape.beams,
                               shape.width, shape.vocabulary, n));
      for (const std::int32_t slot : kStarted)
        expect_slot(found[n], expected[n], slot, shape.beams);
      expect_untouched(found[n], shape.beams);
      if (HasFatalFailure()) return;
    }
    const auto records = run.records(), expected_records = expected_run.records();
    ASSERT_EQ(records.size(), expected_records.size());
    for (std::size_t i = 0; i < kStarted.size(); ++i) {
      const std::size_t at =
          i * static_cast<std::size_t>(SearchRecord::bytes(shape.beams, kLongest));
      SearchRecord head, expected_head;
      std::memcpy(&head, records.data() + at, sizeof(head));
      std::memcpy(&expected_head, expected_records.data() + at, sizeof(head));
      EXPECT_EQ(head.finished_count, expected_head.finished_count);
      EXPECT_EQ(head.length, expected_head.length);
    }
    lab.clear();
    reference.clear();
  }
}

}  // namespace
}  // namespace xlate::test
