// Tests the operations that networks other than post-norm Transformers need, on every backend,
// against loops in double precision: RMS norms and norms before a sublayer, gated feed-forward
// layers, embeddings without positions, and attention with a bias by distance.
#include <gtest/gtest.h>

#include "tests/attention_reference.h"
#include "tests/layer_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// Describes the norms of an add_norm. Both of them have the same kind.
struct NormCase {
  std::string name;
  std::int64_t width;
  int rows;
  NormKind kind;
  bool shift, after, adds;
  std::int64_t gap;
};

std::vector<NormCase> norm_cases() {
  std::vector<NormCase> cases;
  int turn = 0;
  for (const std::int64_t width : {2, 7, 64, 96, 512, 1024, 2050, 4096}) {
    for (const NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
      for (const bool after : {false, true}) {
        const bool shift = turn % 3 != 0, adds = turn % 4 != 3;
        const int rows = turn % 2 ? 33 : 5;
        const std::int64_t gap = turn % 5 == 0 ? 8 : 0;
        cases.push_back(
            {fmt::format("width{}_rows{}_{}_{}_{}_{}_gap{}", width, rows,
                         kind == NormKind::kRms ? "rms" : "layer", shift ? "shift" : "noshift",
                         after ? "both" : "before", adds ? "adds" : "alone", gap),
             width, rows, kind, shift, after, adds, gap});
        ++turn;
      }
    }
  }
  return cases;
}

class BackendNormsBefore : public OnBackendWith<NormCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendNormsBefore,
                         testing::ValuesIn(on_each(backends(), norm_cases(), 2)), CaseName());

TEST_P(BackendNormsBefore, AreOfTheStreamThatIsLeft) {
  const auto& [name, width, rows, kind, has_shift, has_after, adds, gap] = test();
  // Multiples of 1/8 below 4 are exact in every type, and so are their sums.
  const auto eighths = [&](std::int64_t n) {
    Matrix matrix(n, width);
    for (double& value : matrix.values) value = whole(random, -16, 16) / 8.0;
    return matrix;
  };
  const Matrix x = eighths(rows), y = eighths(rows);
  const Matrix gain = random_matrix(random, 1, width, DType::kFloat32), zero(1, width);
  const Matrix shift = has_shift ? random_matrix(random, 1, width, DType::kFloat32) : zero;
  const Norm norm{lab.put(gain, DType::kFloat32),
                  has_shift ? lab.put(shift, DType::kFloat32) : Tensor{}, 1e-6f, kind};
  const Tensor stream = lab.put(x, lab.type(), gap),
               normed = lab.uninitialized(rows, width, lab.type(), gap);
  lab->add_norm(lab.queue(), stream, adds ? lab.put(y, DType::kFloat32, gap) : Tensor{},
                has_after ? norm : Norm{}, norm, normed);

  Matrix sum = x;
  for (std::size_t i = 0; adds && i < sum.values.size(); ++i) sum.values[i] += y.values[i];
  const auto apply = [&](const Matrix& of, Matrix& magnitude) {
    return kind == NormKind::kRms ? rms_normalized(of, gain, shift, 1e-6, magnitude)
                                  : normalized(of, {}, gain, shift, 1e-6, magnitude);
  };
  const double terms = static_cast<double>(width) + 8;
  Matrix magnitude;
  const Matrix found = lab.get(stream);
  if (has_after) {
    const Matrix left = apply(sum, magnitude);
    expect_near(found, lab.type(), left, magnitude, terms);
  } else {
    EXPECT_EQ(found.values, sum.values);
  }
  const Matrix expected = apply(has_after ? found : sum, magnitude);
  // The second norm reads the stream before or after it is rounded.
  Matrix more = magnitude;
  for (double& value : more.values) value *= has_after ? 4 * unit_roundoff(lab.type()) : 0;
  expect_near(lab.get(normed), lab.type(), expected, magnitude, terms, more);
}

struct GateCase {
  std::string name;
  std::int64_t columns;
  int rows;
  Activation activation;
  // A row of the output ends this many elements before the next. Rows of x end 2 elements before,
  // if this is not 0.
  std::int64_t gap;
};

std::vector<GateCase> gate_cases() {
  std::vector<GateCase> cases;
  const std::pair<const char*, Activation> activations[] = {{"relu", Activation::kRelu},
                                                            {"swish", Activation::kSwish},
                                                            {"gelu", Activation::kGelu},
                                                            {"gelu_tanh", Activation::kGeluTanh}};
  int turn = 0;
  for (const std::int64_t columns : {1, 7, 152, 2080}) {
    for (const auto& [name, activation] : activations) {
      const int rows = ++turn % 2 ? 1 : 35;
      // A GPU computes rows that are aligned to vectors in another kernel.
      for (const int gap : {0, 3})
        cases.push_back({fmt::format("columns{}_rows{}_{}_gap{}", columns, rows, name, gap),
                         columns, rows, activation, gap});
    }
  }
  return cases;
}

class BackendGate : public OnBackendWith<GateCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendGate, testing::ValuesIn(on_each(backends(), gate_cases())),
                         CaseName());

TEST_P(BackendGate, MultipliesTheActivatedHalf) {
  const auto& [name, columns, rows, activation, gap] = test();
  Matrix x = random_matrix(random, rows, 2 * columns, lab.type());
  for (double& value : x.values) value *= 4;
  const Tensor out = lab.uninitialized(rows, columns, lab.type(), gap);
  lab->gate(lab.queue(), lab.put(x, lab.type(), gap > 0 ? 2 : 0), activation, out);
  Matrix expected(rows, columns), magnitude(rows, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      expected(r, c) = activated(x(r, c), activation) * x(r, columns + c);
      magnitude(r, c) = (std::fabs(x(r, c)) + 1) * std::fabs(x(r, columns + c));
    }
  }
  expect_near(lab.get(out), lab.type(), expected, magnitude, 16);
}

struct BiasCase {
  std::string name;
  int heads;
  std::int64_t head;
  int distances;
  double scale;
};

class BackendDistanceBias : public OnBackendWith<BiasCase> {
 protected:
  // Makes the attention of a case, and keeps its biases.
  Attention attention_of(const BiasCase& of) {
    biases = random_matrix(random, of.heads, 2 * of.distances + 1, DType::kFloat32);
    for (double& value : biases.values) value *= 4;
    return {of.heads, of.head, static_cast<float>(of.scale),
            of.distances ? lab.put(biases, DType::kFloat32) : Tensor{}};
  }
  double bias(std::int64_t head, std::int64_t distance) const {
    const std::int64_t most = test().distances;
    return most ? biases(head, most + std::clamp(distance, -most, most)) : 0;
  }
  Matrix biases;
};
INSTANTIATE_TEST_SUITE_P(, BackendDistanceBias,
                         testing::ValuesIn(on_each(
                             backends(), std::vector<BiasCase>{{"heads3_of_5", 3, 5, 4, 1},
                                                               {"heads6_of_16", 6, 16, 128, 1},
                                                               {"heads4_of_24", 4, 24, 90, 0.5},
                                                               {"heads2_of_64", 2, 64, 16, 0.125},
                                                               {"heads12_of_64", 12, 64, 128, 1},
                                                               {"heads4_of_128", 4, 128, 5, 0.3},
                                                               {"heads5_of_32", 5, 32, 33, 0.2},
                                                               {"heads17_of_32", 17, 32, 20, 1},
                                                               {"heads2_of_32_none", 2, 32, 0, 1},
                                                               {"heads1_of_256", 1, 256, 3, 0.1}})),
                         CaseName());

TEST_P(BackendDistanceBias, IsAddedBetweenPackedTokens) {
  const BiasCase& of = test();
  const Attention attention_kind = attention_of(of);
  const std::int64_t width = of.heads * of.head;
  const Ints offsets{0, 1, 18, 53};
  const Matrix qkv = random_matrix(random, offsets.back(), 3 * width, lab.type());
  const Tensor out = lab.uninitialized(qkv.rows, width, lab.type());
  const PackedRows packed{.count = qkv.rows, .offsets_host = offsets, .offsets = lab.put(offsets)};
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), packed, attention_kind, out);
  const Matrix found = lab.get(out);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    std::vector<KeyRow> keys;
    for (std::int32_t t = offsets[b]; t < offsets[b + 1]; ++t)
      keys.push_back({row_of(qkv, t) + width, row_of(qkv, t) + 2 * width});
    for (std::int32_t q = offsets[b]; q < offsets[b + 1]; ++q) {
      const auto bias_of = [&](std::int64_t head, std::size_t key) {
        return bias(head, static_cast<std::int64_t>(key) - (q - offsets[b]));
      };
      expect_attention(found, q,
                       attention(row_of(qkv, q), keys, width, of.heads, of.scale, bias_of),
                       backend(), fmt::format("sentence {}", b));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(BackendDistanceBias, IsAddedInAStep) {
  const BiasCase& of = test();
  const Attention attention_kind = attention_of(of);
  const std::int64_t width = of.heads * of.head, beams = 2, longest = 64;
  const Pages pages(lab, random, 2, 8, 8, beams, width);
  std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(2 * longest * beams));
  for (std::uint8_t& ancestor : ancestors)
    ancestor = static_cast<std::uint8_t>(whole(random, 0, static_cast<int>(beams) - 1));
  const Ints lengths{37, 0};
  const SearchState state{.length = lab.put(lengths),
                          .done = lab.put(Ints{0, 0}),
                          .ancestor = lab.put(ancestors),
                          .slots = 2,
                          .beams = beams,
                          .longest = longest};
  const Matrix qkv = random_matrix(random, 2 * beams, 3 * width, lab.type());
  const StepRows rows{lab.put(Ints{0, 1}), 2, beams};
  const PagedCaches caches{{pages.cache}, {pages.cache}, lab.put(Ints(2, 0))};
  const Tensor out = lab.uninitialized(2 * beams, width, lab.type());
  lab->attend_self(lab.queue(), lab.put(qkv, lab.type()), {state, rows, caches}, 0, attention_kind,
                   out);
  const Matrix found = lab.get(out);
  for (std::int64_t r = 0; r < 2 * beams; ++r) {
    const std::int64_t slot = r / beams, length = lengths[static_cast<std::size_t>(slot)];
    std::vector<KeyRow> keys;
    for (std::int64_t t = 0; t < length; ++t) {
      const std::size_t at = static_cast<std::size_t>((slot * longest + t) * beams + r % beams);
      keys.push_back(pages.at(slot, t, ancestors[at]));
    }
    keys.push_back({row_of(qkv, r) + width, row_of(qkv, r) + 2 * width});
    const auto bias_of = [&](std::int64_t head, std::size_t key) {
      return bias(head, static_cast<std::int64_t>(key) - length);
    };
    expect_attention(found, r, attention(row_of(qkv, r), keys, width, of.heads, of.scale, bias_of),
                     backend(), "step");
    if (HasFatalFailure()) return;
  }
}

class BackendBarePositions : public OnBackend {
 protected:
  Lab lab{GetParam(), Sharing::kShared};
  Random random{7};
};
INSTANTIATE_TEST_SUITE_P(, BackendBarePositions, testing::ValuesIn(backends()), backend_name);

TEST_P(BackendBarePositions, AddNothing) {
  for (const std::int64_t width : {7, 64}) {
    const Matrix table = random_matrix(random, 5, width, lab.type());
    const Embedding embedding{lab.put(table, lab.type()), {}, 2};
    const Tensor out = lab.uninitialized(3, width, lab.type());
    lab->embed(
        lab.queue(), embedding,
        PackedRows{.count = 3, .ids = lab.put(Ints{4, 0, 2}), .positions = lab.put(Ints{0, 1, 2})},
        out);
    Matrix expected(3, width);
    for (std::int64_t c = 0; c < width; ++c) {
      expected(0, c) = 2 * table(4, c);
      expected(1, c) = 2 * table(0, c);
      expected(2, c) = 2 * table(2, c);
    }
    EXPECT_EQ(lab.get(out).values, expected.values);
  }
}

}  // namespace
}  // namespace xlate::test
