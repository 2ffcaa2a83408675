// Compares products with loops in double precision: products with a bias and an activation, and
// products with the norm that follows them in a network.
//
// In float16 and bfloat16 a product may be rounded to the type before its bias or its activation.
// That is one more rounding of a partial sum, by at most 2⁻¹¹ or 2⁻⁸ of the sum of the terms'
// magnitudes, which the activation then stretches. In float32 there is no such rounding.
#include <gtest/gtest.h>

#include <tuple>

#include "tests/layer_reference.h"
#include "tests/linear_norm.h"

namespace xlate::test {
namespace {

// No activation has a larger derivative anywhere.
constexpr double kSteepest = 1.2;

struct LinearCase {
  std::string name;
  int rows;
  std::int64_t in, out;
  Activation activation;
  bool float32_out, bias;
  std::int64_t gap;
};

// In a covering list of 66 cases any two values of two different axes meet. Thus every number of
// rows has every activation, and every pair of widths is there. Only a product without an
// activation may have a float32 output.
std::vector<LinearCase> linear_cases() {
  struct Output {
    const char* name;
    Activation activation;
    bool float32;
  };
  constexpr Output kOutputs[] = {
      {"plain", Activation::kNone, false}, {"float32", Activation::kNone, true},
      {"relu", Activation::kRelu, false},  {"swish", Activation::kSwish, false},
      {"gelu", Activation::kGelu, false},  {"gelu_tanh", Activation::kGeluTanh, false}};
  constexpr int kIn[] = {1, 7, 33, 128}, kOut[] = {1, 15, 130, 2184};
  std::vector<LinearCase> cases;
  std::size_t r = 0, turn = 0;
  for (const int rows : {1, 2, 3, 4, 5, 7, 8, 9, 10, 31, 65}) {
    for (std::size_t i = 0; i < std::size(kOutputs); ++i, ++turn) {
      const auto& [output, activation, float32] = kOutputs[i];
      const int in = kIn[(r + i) % 4], out = kOut[(r / 2 + 3 * i) % 4], gap = turn % 7 < 4 ? 0 : 3;
      const bool bias = turn % 5 % 2 == 1;
      cases.push_back({fmt::format("rows{}_in{}_out{}_{}{}_gap{}", rows, in, out, output,
                                   bias ? "_bias" : "", gap),
                       rows, in, out, activation, float32, bias, gap});
    }
    ++r;
  }
  return cases;
}

class BackendLinear : public OnBackendWith<LinearCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendLinear, testing::ValuesIn(on_each(backends(), linear_cases(), 3)),
                         CaseName());

TEST_P(BackendLinear, IsTheActivationOfProductPlusBias) {
  const auto& [name, rows, in, out_width, activation, float32_out, bias, gap] = test();
  const Matrix x = random_matrix(random, rows, in, lab.type()),
               w = random_matrix(random, out_width, in, lab.type()),
               b = random_matrix(random, 1, out_width, lab.type());
  const Linear layer{lab.put(w, lab.type(), gap), bias ? lab.put(b, lab.type()) : Tensor{}};
  const DType out_type = float32_out ? DType::kFloat32 : lab.type();
  const Tensor out = lab.uninitialized(rows, out_width, out_type, gap);
  lab->linear(lab.queue(), lab.put(x, lab.type(), gap), layer, activation, out);
  Matrix expected(rows, out_width), magnitude(rows, out_width), rounded_before(rows, out_width);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < out_width; ++j) {
      double sum = bias ? b(0, j) : 0, size = std::fabs(sum);
      for (std::int64_t k = 0; k < in; ++k)
        sum += x(i, k) * w(j, k), size += std::fabs(x(i, k) * w(j, k));
      expected(i, j) = activated(sum, activation);
      magnitude(i, j) = size + std::fabs(sum);
      if (lab.type() != DType::kFloat32 && activation != Activation::kNone)
        rounded_before(i, j) = kSteepest * rounding(lab.type(), magnitude(i, j));
    }
  }
  expect_near(lab.get(out), out_type, expected, magnitude, static_cast<double>(in) + 16,
              rounded_before);
}

struct ActivationCase {
  std::string name;
  Activation activation;
};

class BackendActivation : public OnBackendWith<ActivationCase> {};
INSTANTIATE_TEST_SUITE_P(, BackendActivation,
                         testing::ValuesIn(on_each(backends(),
                                                   std::vector<ActivationCase>{
                                                       {"relu", Activation::kRelu},
                                                       {"swish", Activation::kSwish},
                                                       {"gelu", Activation::kGelu},
                                                       {"gelu_tanh", Activation::kGeluTanh}})),
                         CaseName());

TEST_P(BackendActivation, OfALargeValueIsZeroOrTheValue) {
  const Activation activation = test().activation;
  Matrix x(1, 12);
  x.values = {-1e4, -200, -88, -60, -20, -5, 5, 20, 60, 88, 200, 1e4};
  for (double& value : x.values) value = rounded(lab.type(), value);
  Matrix one(12, 12);
  for (std::int64_t i = 0; i < 12; ++i) one(i, i) = 1;
  const Linear layer{lab.put(one, lab.type()), {}};
  const Tensor out = lab.uninitialized(1, 12, lab.type());
  lab->linear(lab.queue(), lab.put(x, lab.type()), layer, activation, out);
  Matrix expected(1, 12);
  for (std::size_t i = 0; i < 12; ++i) expected.values[i] = activated(x.values[i], activation);
  const Matrix found = lab.get(out);
  expect_near(found, lab.type(), expected, constant(1, 12, 1), 16);
  for (std::size_t i = 6; i < 12; ++i)
    EXPECT_NEAR(found.values[i] / x.values[i], expected.values[i] / x.values[i],
                1e-3 + 2 * unit_roundoff(lab.type()));
}

struct LinearNormCase {
  std::string name;
  std::int64_t in, width, rows;
  bool bias, low_bits;
  std::int64_t gap;
  bool before = false, shift = true;
  NormKind kind = NormKind::kLayer;
};

// The first cases are all pairs of the shapes and the numbers of rows. Every shape and every number
// of rows occurs with and without a bias. The cases of 960 rows have no low bits. The others have
// every norm at every width that a kernel of the GPU fuses with its product.
std::vector<LinearNormCase> linear_norm_cases() {
  std::vector<LinearNormCase> cases;
  int turn = 0;
  for (const auto& [in, width] :
       {std::pair{7, 15}, {64, 256}, {512, 512}, {128, 512}, {320, 256}, {96, 384}}) {
    for (const int rows : {1, 33, 512, 801, 960}) {
      ++turn;
      const bool bias = turn % 2 == 1, low_bits = rows != 960;
      cases.push_back({fmt::format("in{}_width{}_rows{}{}{}", in, width, rows, bias ? "_bias" : "",
                                   low_bits ? "_low_bits" : ""),
                       in, width, rows, bias, low_bits, rows == 801 ? 16 : 0});
    }
  }
  for (const auto& [norm, before, shift, kind] :
       {std::tuple{"layer_after", false, true, NormKind::kLayer},
        {"layer_before", true, true, NormKind::kLayer},
        {"layer_before_noshift", true, false, NormKind::kLayer},
        {"rms_before", true, false, NormKind::kRms}}) {
    for (const auto& [in, width] : {std::pair{128, 256}, {64, 512}, {192, 768}, {64, 1024}}) {
      ++turn;
      const int rows = turn % 3 == 0 ? 33 : 801;
      const bool bias = turn % 2 == 1;
      cases.push_back(
          {fmt::format("in{}_width{}_rows{}{}_{}", in, width, rows, bias ? "_bias" : "", norm), in,
           width, rows, bias, true, turn % 5 == 0 ? 16 : 0, before, shift, kind});
    }
  }
  return cases;
}

class BackendLinearNorm : public OnBackendWith<LinearNormCase> {
 protected:
  // The factors are multiples of 1/16, so that float32 sums of their products are exact whereas
  // many of these sums would be rounded in float16, beyond 8.
  Matrix sixteenths(std::int64_t rows, std::int64_t columns) {
    Matrix matrix(rows, columns);
    for (double& value : matrix.values) value = whole(random, -16, 16) / 16.0;
    return matrix;
  }
  // Gives a stream low bits that are all zero, in 16-bit types only.
  ResidualRows with_low_bits(const Tensor& stream) {
    if (lab.type() == DType::kFloat32 || !test().low_bits) return ResidualRows(stream);
    const Tensor low_bits = lab.uninitialized(stream.rows, stream.columns, DType::kInt8,
                                              stream.stride - stream.columns);
    for (std::int64_t row = 0; row < stream.rows; ++row)
      lab->clear(lab.queue(), low_bits.row_range(row, 1).data,
                 static_cast<std::size_t>(stream.columns));
    return ResidualRows(stream, low_bits);
  }
};
INSTANTIATE_TEST_SUITE_P(, BackendLinearNorm,
                         testing::ValuesIn(on_each(backends(), linear_norm_cases(), 3)),
                         CaseName());

// The product goes into the norm in float32, and a backend may compute both with one kernel.
TEST_P(BackendLinearNorm, IsTheNormOfStreamPlusProduct) {
  const auto& [name, in, width, rows, bias, has_low_bits, gap, before, has_shift, kind] = test();
  const Matrix x = sixteenths(rows, in), w = sixteenths(width, in), b = sixteenths(1, width),
               r = random_matrix(random, rows, width, lab.type());
  const Matrix gain = random_matrix(random, 1, width, DType::kFloat32), none(1, width),
               shift = has_shift ? random_matrix(random, 1, width, DType::kFloat32) : none;
  const Norm norm{lab.put(gain, DType::kFloat32),
                  has_shift ? lab.put(shift, DType::kFloat32) : Tensor{}, 1e-5f, kind};
  const Linear layer{lab.put_weight(w), bias ? lab.put(b, lab.type()) : Tensor{}};
  const Tensor input = lab.put(x, lab.type(), gap),
               between = lab.uninitialized(rows, width, DType::kFloat32),
               normed = before ? lab.uninitialized(rows, width, lab.type(), gap) : Tensor{};
  const ResidualRows stream = with_low_bits(lab.put(r, lab.type(), 2 * gap));
  run_linear_norm(*lab, lab.queue(), input, layer, between, stream, before ? Norm{} : norm,
                  before ? norm : Norm{}, normed);
  Matrix sum(rows, width), size(rows, width), magnitude;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      sum(i, j) = r(i, j) + (bias ? b(0, j) : 0);
      for (std::int64_t k = 0; k < in; ++k) sum(i, j) += x(i, k) * w(j, k);
      size(i, j) = std::fabs(sum(i, j)) + std::fabs(r(i, j));
    }
  }
  if (before) expect_near(lab.get(stream.rounded), lab.type(), sum, size, 2);
  const double epsilon = static_cast<double>(norm.epsilon);
  const Matrix expected = kind == NormKind::kRms
                              ? rms_normalized(sum, gain, shift, epsilon, magnitude)
                              : normalized(sum, {}, gain, shift, epsilon, magnitude);
  expect_near(lab.get(before ? normed : stream.rounded), lab.type(), expected, magnitude,
              static_cast<double>(width) + 8);
}

}  // namespace
}  // namespace xlate::test
