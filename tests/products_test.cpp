// Tests products on the CPU: a row has the same bits in any batch and with any number of threads,
// and products in int8 and bfloat16, also those with the vocabulary, are those of the rounded
// operands. CMake also runs this suite
// with oneDNN kept to older instruction sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/cpu/products/half.h"
#include "engine/cpu/products/product_library.h"
#include "engine/error.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kBFloat16, Precision::kInt8};
constexpr const char* kNames[] = {"auto", "fp32", "fp16", "bf16", "int8"};

bool has(Precision precision) {
  return precision != Precision::kBFloat16 || cpu::open_product_library()->has(DType::kBFloat16);
}

std::vector<float> random_numbers(Random& random, std::int64_t count, float size) {
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& number : numbers) number = static_cast<float>(uniform(random, -size, size));
  return numbers;
}

// Has a product y = activation(x·Wᵀ + b) in plain memory; x [rows, d], W [n, d].
struct Product {
  std::int64_t n, d;
  std::vector<float> x, weights, bias;

  Product(std::int64_t rows, std::int64_t n, std::int64_t d, Random& random)
      : n(n),
        d(d),
        x(random_numbers(random, rows * d, 2)),
        weights(random_numbers(random, n * d, 1.7f / std::sqrt(static_cast<float>(d)))),
        bias(random_numbers(random, n, 1)) {}

  Linear layer(Backend& backend) {
    Linear layer{{nullptr, DType::kFloat32, n, d, d}, {bias.data(), DType::kFloat32, 1, n, n}};
    layer.packed = backend.pack(n, d, [&](std::int64_t first, std::int64_t count, float* out) {
      std::copy_n(weights.data() + first * d, count * d, out);
    });
    return layer;
  }
  // Computes `count` rows from `first` on.
  std::vector<float> compute(Backend& backend, const Linear& layer, std::int64_t first,
                             std::int64_t count) {
    std::vector<float> out(static_cast<std::size_t>(count * n), -7.0f);
    const auto queue = backend.make_queue();
    backend.linear(*queue, {x.data() + first * d, DType::kFloat32, count, d, d}, layer,
                   Activation::kRelu, {out.data(), DType::kFloat32, count, n, n});
    return out;
  }
};

std::unique_ptr<Backend> backend_with(Precision precision, int threads) {
  return make_backend({.precision = precision, .threads = threads});
}

class ProductsOfType : public testing::TestWithParam<Precision> {
 protected:
  void SetUp() override {
    if (!has(GetParam())) GTEST_SKIP() << "the processor has no instructions for bfloat16";
  }
};
INSTANTIATE_TEST_SUITE_P(, ProductsOfType, testing::ValuesIn(kPrecisions),
                         [](const auto& test) { return kNames[static_cast<int>(test.param)]; });

TEST_P(ProductsOfType, HaveTheSameBitsInAnyBatchWithAnyThreads) {
  constexpr std::int64_t kRows = 150;
  constexpr std::int64_t kShapes[][2] = {{512, 512}, {512, 2048}, {2048, 512},
                                         {192, 64},  {64, 160},   {1001, 256},
                                         {8, 4},     {130, 2200}, {33, 7}};
  Random random{5};
  for (const auto& [n, d] : kShapes) {
    Product product(kRows, n, d, random);
    std::vector<float> expected;
    for (const int threads : {1, 2, 5}) {
      const auto backend = backend_with(GetParam(), threads);
      const Linear layer = product.layer(*backend);
      if (expected.empty()) expected = product.compute(*backend, layer, 0, kRows);
      for (const std::int64_t count :
           {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 150}) {
        for (const std::int64_t first : {std::int64_t{0}, kRows - count}) {
          const std::vector<float> found = product.compute(*backend, layer, first, count);
          EXPECT_EQ(
              std::memcmp(found.data(), expected.data() + first * n, found.size() * sizeof(float)),
              0)
              << d << " → " << n << ", " << count << " rows from " << first << " on, " << threads
              << " threads";
        }
      }
    }
  }
}

float to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u);
}

// Returns the scale of a row of int8 and makes its elements whole numbers.
double quantize(float* row, std::int64_t n, float largest) {
  float most = 0;
  for (std::int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(row[i]));
  for (std::int64_t i = 0; i < n; ++i) row[i] = std::nearbyint(row[i] * (largest / most));
  return most / largest;
}

// Returns x·Wᵀ + b [rows, n] in double precision, with operands that are rounded to the type of
// this precision.
std::vector<double> rounded_product(Product product, std::int64_t rows, Precision precision) {
  const std::int64_t n = product.n, d = product.d;
  std::vector<double> row_scales(static_cast<std::size_t>(rows), 1),
      scales(static_cast<std::size_t>(n), 1);
  if (precision == Precision::kBFloat16) {
    for (float& value : product.x) value = to_bfloat16(value);
    for (float& value : product.weights) value = to_bfloat16(value);
  } else if (precision == Precision::kInt8) {
    const auto largest = static_cast<float>(cpu::open_product_library()->largest_weight());
    for (std::int64_t i = 0; i < rows; ++i)
      row_scales[static_cast<std::size_t>(i)] = quantize(product.x.data() + i * d, d, 127);
    for (std::int64_t j = 0; j < n; ++j)
      scales[static_cast<std::size_t>(j)] = quantize(product.weights.data() + j * d, d, largest);
  }
  std::vector<double> out;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < n; ++j)
      out.push_back(std::inner_product(product.x.begin() + i * d, product.x.begin() + (i + 1) * d,
                                       product.weights.begin() + j * d, 0.0) *
                        row_scales[static_cast<std::size_t>(i)] *
                        scales[static_cast<std::size_t>(j)] +
                    static_cast<double>(product.bias[static_cast<std::size_t>(j)]));
  }
  return out;
}

TEST_P(ProductsOfType, AreThoseOfTheRoundedOperands) {
  Random random{6};
  for (const auto& [n, d] : {std::pair<std::int64_t, std::int64_t>{200, 512}, {65, 2100}, {5, 3}}) {
    constexpr std::int64_t kRows = 21;
    Product product(kRows, n, d, random);
    const auto backend = backend_with(GetParam(), 2);
    const std::vector<float> found = product.compute(*backend, product.layer(*backend), 0, kRows);
    const std::vector<double> expected = rounded_product(product, kRows, GetParam());
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], std::max(0.0, expected[i]), 2e-5)
          << "row " << i / static_cast<std::size_t>(n) << ", column "
          << i % static_cast<std::size_t>(n);
  }
}

// The vocabulary is computed in chunks of several panels, and each row in one of several blocks.
// Its logits have a bias, and a softcap behind it.
TEST_P(ProductsOfType, GiveTheVocabularysLogProbabilities) {
  constexpr std::int64_t kRows = 131, kVocabulary = 1300, kWidth = 512;
  constexpr float kCap = 2;
  Random random{11};
  Product product(kRows, kVocabulary, kWidth, random);
  // The rows of weights differ in size, and so do their scales.
  for (std::size_t i = 0; i < product.weights.size(); ++i)
    product.weights[i] *= 0.5f + static_cast<float>(i / kWidth % 5);
  const auto backend = backend_with(GetParam(), 2);
  const auto queue = backend->make_queue();
  std::vector<std::int32_t> ids(kRows);
  for (std::int32_t& id : ids) id = whole(random, 0, kVocabulary - 1);
  ids[0] = 0, ids[1] = kVocabulary - 1;
  std::vector<float> found(kRows);
  backend->log_probabilities(*queue, {product.x.data(), DType::kFloat32, kRows, kWidth, kWidth},
                             {.linear = product.layer(*backend), .softcap = kCap}, ids.data(),
                             found.data());
  const std::vector<double> sums = rounded_product(product, kRows, GetParam());
  for (std::int64_t row = 0; row < kRows; ++row) {
    const auto logit = [&](std::int64_t id) {
      return kCap * std::tanh(sums[static_cast<std::size_t>(row * kVocabulary + id)] / kCap);
    };
    double total = 0;
    for (std::int64_t id = 0; id < kVocabulary; ++id) total += std::exp(logit(id));
    const auto at = static_cast<std::size_t>(row);
    EXPECT_NEAR(found[at], logit(ids[at]) - std::log(total), 2e-5) << "row " << row;
  }
}

// Two products of bytes are added in 16 bits on some processors, which would overflow.
TEST(ProductsTest, LargestNumbersOfInt8AreAddedWithoutLoss) {
  constexpr std::int64_t kRows = 8;
  Random random{10};
  for (const std::int64_t d : {4, 33, 512, 2200}) {
    Product product(kRows, 70, d, random);
    // With a magnitude of 1 alone, each number becomes the largest one of its type.
    for (float& value : product.x) value = whole(random, 0, 1) ? 1.0f : -1.0f;
    for (float& value : product.weights) value = whole(random, 0, 1) ? 1.0f : -1.0f;
    std::fill_n(product.x.begin(), d, 1.0f);
    std::fill_n(product.x.begin() + d, d, -1.0f);
    std::fill_n(product.weights.begin(), d, 1.0f);
    std::fill_n(product.weights.begin() + d, d, -1.0f);
    std::fill(product.bias.begin(), product.bias.end(), static_cast<float>(d));
    const auto backend = backend_with(Precision::kInt8, 1);
    const std::vector<float> found = product.compute(*backend, product.layer(*backend), 0, kRows);
    for (std::int64_t i = 0; i < kRows; ++i) {
      for (std::int64_t j = 0; j < 70; ++j) {
        const float expected =
            std::inner_product(product.x.begin() + i * d, product.x.begin() + (i + 1) * d,
                               product.weights.begin() + j * d, static_cast<float>(d));
        ASSERT_NEAR(found[static_cast<std::size_t>(i * 70 + j)], expected,
                    2e-6 * static_cast<double>(d))
            << d << ": row " << i << ", column " << j;
      }
    }
  }
}

// The numbers of a matrix in float16 are the same in float32. So a panel is the same whether it is
// stored in 16 bits, or in 32 because of one other number.
TEST(ProductsTest, WeightsInFloat16AreStoredWithoutLoss) {
  Random random{9};
  for (const auto& [n, d] :
       {std::pair<std::int64_t, std::int64_t>{600, 520}, {512, 2200}, {70, 33}, {8, 4}}) {
    constexpr std::int64_t kRows = 70;
    Product product(kRows, n, d, random);
    for (float& weight : product.weights)
      weight = static_cast<float>(std::round(weight * 1024)) / 1024;
    // These are the least and the largest number of float16, and zeros of both signs.
    const float edges[] = {0x1p-24f, 65504, -0x1p-24f, 0, -0.0f};
    std::copy(std::begin(edges), std::end(edges), product.weights.begin());
    const auto backend = backend_with(Precision::kFloat32, 2);
    const std::vector<float> narrow = product.compute(*backend, product.layer(*backend), 0, kRows);
    for (std::int64_t column = 0; column < n; column += 64) {
      const auto at = static_cast<std::size_t>(column * d + 2);
      const float before = std::exchange(product.weights[at], 0.1f);
      const std::vector<float> wide = product.compute(*backend, product.layer(*backend), 0, kRows);
      product.weights[at] = before;
      for (std::int64_t i = 0; i < kRows; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          const auto index = static_cast<std::size_t>(i * n + j);
          if (j == column) continue;
          ASSERT_EQ(narrow[index], wide[index]) << d << " → " << n << ": " << i << ", " << j;
        }
      }
    }
  }
}

TEST(ProductsTest, WhatFloat16CannotHoldIsFound) {
  const auto is_exact = [](float value) {
    std::vector<float> values(48, 1.0f), back(48);
    values[37] = value;
    std::vector<std::uint16_t> halves(48);
    if (!cpu::narrow_exactly(values.data(), 48, halves.data())) return false;
    cpu::widen(halves.data(), 48, back.data());
    EXPECT_EQ(std::memcmp(values.data(), back.data(), sizeof(float) * 48), 0) << value;
    return true;
  };
  if (!is_exact(1)) GTEST_SKIP() << "the processor has no instructions for float16";
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -0.0f, 0x1p-24f, 0x3ffp-24f, 0x1p-14f, 1 + 0x1p-10f, 65504.0f,
                            -65504.0f, infinity, -infinity})
    EXPECT_TRUE(is_exact(value)) << value;
  for (const float value : {0x1p-25f, 0x1.8p-24f, 1 + 0x1p-11f, 0.1f, 65505.0f, 65536.0f, -1e30f,
                            std::bit_cast<float>(0x7fc00001u), std::bit_cast<float>(0x7f800001u)})
    EXPECT_FALSE(is_exact(value)) << value;
  std::vector<std::uint16_t> halves(15);
  EXPECT_FALSE(cpu::narrow_exactly(std::vector<float>(15).data(), 15, halves.data()));
}

// Search notices a sentence whose numbers overflow by NaN or infinity in its logits.
TEST_P(ProductsOfType, LetNumbersThatOverflowBeSeen) {
  Random random{7};
  for (const float value :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
        std::bit_cast<float>(0x7fc00001u), std::bit_cast<float>(0xffffffffu)}) {
    Product product(3, 70, 64, random);
    for (float& weight : product.weights) weight = std::abs(weight);
    product.x[64 + 5] = value;
    const auto backend = backend_with(GetParam(), 1);
    const std::vector<float> found = product.compute(*backend, product.layer(*backend), 0, 3);
    for (std::size_t j = 0; j < 70; ++j) {
      EXPECT_TRUE(std::isfinite(found[j]) && std::isfinite(found[140 + j]));
      EXPECT_FALSE(std::isfinite(found[70 + j]));
    }
  }
}

TEST_P(ProductsOfType, GiveTheBiasForRowsOfZeros) {
  Random random{8};
  Product product(2, 40, 32, random);
  std::fill_n(product.x.begin(), 32, 0.0f);
  const auto backend = backend_with(GetParam(), 1);
  const std::vector<float> found = product.compute(*backend, product.layer(*backend), 0, 2);
  for (std::size_t j = 0; j < 40; ++j) EXPECT_EQ(found[j], std::max(0.0f, product.bias[j]));
}

TEST(ProductsTest, Int8IsRefusedWhereSumsMightOverflow) {
  const auto backend = backend_with(Precision::kInt8, 1);
  const auto read = [](std::int64_t, std::int64_t count, float* out) {
    std::fill_n(out, count * 133145, 1.0f);
  };
  try {
    backend->pack(1, 133145, read);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("133145 columns, expected at most 133144"),
              std::string::npos)
        << error.what();
  }
}

TEST(ProductsTest, BFloat16IsRefusedWhereTheProcessorDoesNotHaveIt) {
  if (has(Precision::kBFloat16)) {
    EXPECT_NO_THROW(backend_with(Precision::kBFloat16, 1));
    return;
  }
  EXPECT_THROW(backend_with(Precision::kBFloat16, 1), Error);
}

}  // namespace
}  // namespace xlate::test
