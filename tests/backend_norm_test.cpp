// Compares the residual stream with loops in double precision: the norm of a sum, and the low bits,
// which are what rounding to 16 bits takes off the stream's values.
#include <gtest/gtest.h>

#include "tests/layer_reference.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

// This is what is added to the stream before the norm: nothing, or rows of the type.
enum class Added { kNothing, kComputeType, kFloat32 };

struct AddNormCase {
  std::string name;
  std::int64_t width;
  int rows;
  Added added;
  std::int64_t gap;
};

// A covering list of 24 cases has every width with each kind of addend and with three of the four
// numbers of rows. The numbers of rows take turns, so that each of them has every kind of addend
// too. There is a gap between rows where there are more than nine.
std::vector<AddNormCase> add_norm_cases() {
  constexpr int kRows[] = {1, 9, 33, 70};
  constexpr const char* kAdded[] = {"alone", "added", "added_float32"};
  std::vector<AddNormCase> cases;
  std::size_t turn = 0;
  for (const std::int64_t width : {1, 2, 3, 17, 64, 511, 512, 1024}) {
    for (std::size_t i = 0; i < 3; ++i) {
      const int rows = kRows[(turn + i) % 4];
      cases.push_back({fmt::format("width{}_rows{}_{}", width, rows, kAdded[i]), width, rows,
                       static_cast<Added>(i), rows > 9 ? 3 : 0});
    }
    ++turn;
  }
  return cases;
}

class BackendAddNorm : public OnBackendWith<AddNormCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendAddNorm,
                         testing::ValuesIn(on_each(backends(), add_norm_cases(), 2)), CaseName());

TEST_P(BackendAddNorm, IsTheNormOfTheSum) {
  const auto& [name, width, rows, added, gap] = test();
  const bool adds = added != Added::kNothing;
  // The values of one row are far from zero, and the sum of another row is constant.
  Matrix x = random_matrix(random, rows, width, lab.type()),
         r = random_matrix(random, rows, width, lab.type());
  for (std::int64_t c = 0; c < width; ++c) {
    x(0, c) = rounded(lab.type(), x(0, c) + 8);
    if (rows > 1) x(1, c) = 0.5, r(1, c) = -0.125;
  }
  const Matrix gain = random_matrix(random, 1, width, DType::kFloat32),
               bias = random_matrix(random, 1, width, DType::kFloat32);
  const Norm norm{lab.put(gain, DType::kFloat32), lab.put(bias, DType::kFloat32), 1e-5f};
  const Tensor stream = lab.put(x, lab.type(), gap);
  const DType added_type = added == Added::kFloat32 ? DType::kFloat32 : lab.type();
  lab->add_norm(lab.queue(), stream, adds ? lab.put(r, added_type, gap + 2) : Tensor{}, norm, {},
                {});
  Matrix magnitude;
  const Matrix expected =
      normalized(x, adds ? r : Matrix{}, gain, bias, static_cast<double>(norm.epsilon), magnitude);
  expect_near(lab.get(stream), lab.type(), expected, magnitude, static_cast<double>(width) + 8);
}

struct LowBitsCase {
  std::string name;
  std::int64_t width;
  int rows;
  std::int64_t gap;
};

// These are all pairs of the widths and the numbers of rows.
std::vector<LowBitsCase> low_bits_cases() {
  std::vector<LowBitsCase> cases;
  for (const std::int64_t width : {7, 33, 250, 256, 512, 1024}) {
    for (const auto& [rows, gap] : {std::pair{1, 0}, {9, 16}, {33, 3}})
      cases.push_back({fmt::format("width{}_rows{}_gap{}", width, rows, gap), width, rows, gap});
  }
  return cases;
}

// Returns the backends with low bits, which are those that compute in 16 bits.
std::vector<BackendUnderTest> backends_in_16_bits() {
  std::vector<BackendUnderTest> list = backends();
  std::erase_if(list, [](const BackendUnderTest& test) { return size_of(test.type) != 2; });
  return list;
}

class BackendLowBits : public OnBackendWith<LowBitsCase> {
 protected:
  // This bounds the error of a normalized remainder. The low bits divide the distance between two
  // neighbouring numbers of the type into 256 steps, half of them on either side of the rounded
  // value.
  static constexpr double kNear = 0.06;

  struct Embedded {
    ResidualRows stream;
    Matrix exact;
  };

  // Embeds random tokens into a stream with low bits.
  Embedded embed() {
    const auto& [name, width, rows, gap] = test();
    const Matrix table = random_matrix(random, 11, width, lab.type()),
                 positions = random_matrix(random, 20, width, DType::kFloat32);
    Ints ids, places;
    for (int i = 0; i < rows; ++i)
      ids.push_back(whole(random, 0, 10)), places.push_back(whole(random, 0, 19));
    const Embedding embedding{lab.put(table, lab.type()), lab.put(positions, DType::kFloat32), 3};
    const PackedRows packed{.count = rows, .ids = lab.put(ids), .positions = lab.put(places)};
    Embedded result{ResidualRows(lab.uninitialized(rows, width, lab.type(), gap),
                                 lab.uninitialized(rows, width, DType::kInt8, gap)),
                    Matrix(rows, width)};
    lab->embed(lab.queue(), embedding, packed, result.stream);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < width; ++c)
        result.exact(r, c) = static_cast<float>(table(ids[static_cast<std::size_t>(r)], c) * 3 +
                                                positions(places[static_cast<std::size_t>(r)], c));
    }
    return result;
  }

  // Expects that the stream's low bits are what its rounded values lack. Adding the negative
  // rounded values leaves nothing but the low bits, which the norm makes large.
  void expect_low_bits(const ResidualRows& stream, const Matrix& exact) {
    const auto& [name, width, rows, gap] = test();
    const Norm plain{lab.put(constant(1, width, 1), DType::kFloat32),
                     lab.put(Matrix(1, width), DType::kFloat32), 1e-20f};
    Matrix negative = lab.get(stream.rounded), remainder = exact, magnitude;
    for (std::size_t i = 0; i < exact.values.size(); ++i)
      remainder.values[i] -= negative.values[i], negative.values[i] *= -1;
    lab->add_norm(lab.queue(), stream, lab.put(negative, lab.type(), gap), plain, {}, {});
    const Matrix found = lab.get(stream.rounded),
                 expected = normalized(remainder, {}, constant(1, width, 1), Matrix(1, width),
                                       1e-20, magnitude);
    for (std::size_t i = 0; i < found.values.size(); ++i) {
      ASSERT_NEAR(found.values[i], expected.values[i],
                  kNear + 4 * unit_roundoff(lab.type()) * std::fabs(expected.values[i]))
          << "element " << i;
    }
  }

  // Normalizes an embedded stream, after it has added random rows if `adds`, and checks the low
  // bits of the result.
  void expect_low_bits_of_norm(bool adds) {
    const auto& [name, width, rows, gap] = test();
    const auto [stream, exact] = embed();
    const Matrix added = random_matrix(random, rows, width, lab.type()),
                 gain = random_matrix(random, 1, width, DType::kFloat32),
                 bias = random_matrix(random, 1, width, DType::kFloat32);
    const Norm norm{lab.put(gain, DType::kFloat32), lab.put(bias, DType::kFloat32), 1e-5f};
    lab->add_norm(lab.queue(), stream, adds ? lab.put(added, lab.type(), gap) : Tensor{}, norm, {},
                  {});
    Matrix magnitude;
    expect_low_bits(stream, normalized(exact, adds ? added : Matrix{}, gain, bias,
                                       static_cast<double>(norm.epsilon), magnitude));
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendLowBits);
INSTANTIATE_TEST_SUITE_P(, BackendLowBits,
                         testing::ValuesIn(on_each(backends_in_16_bits(), low_bits_cases(), 5)),
                         CaseName());

TEST_P(BackendLowBits, AreKeptByEmbed) {
  const auto [stream, exact] = embed();
  expect_low_bits(stream, exact);
}

TEST_P(BackendLowBits, AreKeptByAddNorm) { expect_low_bits_of_norm(true); }

TEST_P(BackendLowBits, AreKeptByTheNormAlone) { expect_low_bits_of_norm(false); }

}  // namespace
}  // namespace xlate::test
