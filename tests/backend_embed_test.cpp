// Compares the embedding of packed rows and of a step's hypotheses with loops in double precision.
#include <gtest/gtest.h>

#include "tests/layer_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// In each tensor of a case `gap` elements lie between the end of a row and the next row.
struct EmbedCase {
  std::string name;
  std::int64_t width;
  int rows;
  std::int64_t gap;
};

// A covering list of 18 cases has every width with three of the six numbers of rows, and both gaps.
// There is a gap where the number of rows is odd. A task of the CPU has 32 rows.
std::vector<EmbedCase> embed_cases() {
  std::vector<EmbedCase> cases;
  for (const auto& [width, rows] : {std::pair{1, 1},
                                    {1, 32},
                                    {1, 97},
                                    {2, 2},
                                    {2, 31},
                                    {2, 33},
                                    {7, 1},
                                    {7, 32},
                                    {7, 97},
                                    {33, 2},
                                    {33, 33},
                                    {33, 97},
                                    {256, 1},
                                    {256, 32},
                                    {256, 33},
                                    {512, 2},
                                    {512, 31},
                                    {512, 97}}) {
    const int gap = rows % 2 ? 5 : 0;
    cases.push_back({fmt::format("width{}_rows{}_gap{}", width, rows, gap), width, rows, gap});
  }
  return cases;
}

class BackendEmbed : public OnBackendWith<EmbedCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendEmbed, testing::ValuesIn(on_each(backends(), embed_cases(), 4)),
                         CaseName());

TEST_P(BackendEmbed, IsTableTimesScalePlusPosition) {
  const auto& [name, width, rows, gap] = test();
  const Matrix table = random_matrix(random, 11, width, lab.type()),
               positions = random_matrix(random, 20, width, DType::kFloat32);
  const float scale = uniform(random, 1, 20);
  const Embedding embedding{lab.put(table, lab.type(), gap),
                            lab.put(positions, DType::kFloat32, gap), scale};
  Ints ids, places;
  for (int i = 0; i < rows; ++i)
    ids.push_back(whole(random, 0, 10)), places.push_back(whole(random, 0, 19));
  const Tensor out = lab.uninitialized(rows, width, lab.type(), gap);
  lab->embed(lab.queue(), embedding,
             PackedRows{.count = rows, .ids = lab.put(ids), .positions = lab.put(places)}, out);
  Matrix expected(rows, width), magnitude(rows, width);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c) {
      const double token = table(ids[static_cast<std::size_t>(r)], c) * scale,
                   place = positions(places[static_cast<std::size_t>(r)], c);
      expected(r, c) = token + place;
      magnitude(r, c) = std::fabs(token) + std::fabs(place);
    }
  }
  expect_near(lab.get(out), lab.type(), expected, magnitude, 2);
}

struct EmbedStepCase {
  std::string name;
  std::int64_t beams;
};

class BackendEmbedStep : public OnBackendWith<EmbedStepCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendEmbedStep,
                         testing::ValuesIn(on_each(backends(),
                                                   std::vector<EmbedStepCase>{{"beams1", 1},
                                                                              {"beams3", 3},
                                                                              {"beams8", 8}})),
                         CaseName());

TEST_P(BackendEmbedStep, TakesTheLastTokenOfEachHypothesis) {
  const std::int64_t slots = 5, width = 9, beams = test().beams;
  const Matrix table = random_matrix(random, 30, width, lab.type()),
               positions = random_matrix(random, 8, width, DType::kFloat32);
  const Embedding embedding{lab.put(table, lab.type(), 3), lab.put(positions, DType::kFloat32),
                            2.5f};
  Ints tokens;
  for (std::int64_t i = 0; i < slots * beams; ++i) tokens.push_back(whole(random, 0, 29));
  const Ints lengths{0, 7, 3, 1, 2}, groups{4, 1, 2};
  const SearchState state{.token = lab.put(tokens),
                          .length = lab.put(lengths),
                          .done = lab.put(Ints(static_cast<std::size_t>(slots), 0)),
                          .slots = slots,
                          .beams = beams,
                          .longest = 8};
  const Tensor out = lab.uninitialized(3 * beams, width, lab.type(), 2);
  const PagedCaches none;
  lab->embed(lab.queue(), embedding, Step{state, {lab.put(groups), 3, beams}, none}, out);
  Matrix expected(out.rows, width);
  for (std::int64_t r = 0; r < out.rows; ++r) {
    const std::int32_t slot = groups[static_cast<std::size_t>(r / beams)],
                       token = tokens[static_cast<std::size_t>(slot * beams + r % beams)];
    for (std::int64_t c = 0; c < width; ++c)
      expected(r, c) =
          table(token, c) * 2.5 + positions(lengths[static_cast<std::size_t>(slot)], c);
  }
  expect_near(lab.get(out), lab.type(), expected, constant(out.rows, width, 4), 2);
}

}  // namespace
}  // namespace xlate::test
