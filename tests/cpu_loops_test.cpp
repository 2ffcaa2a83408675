// Tests the CPU backend's inner loops: those of attention for each instruction set that the
// processor has, against sums in double precision, and what the others do with NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "engine/cpu/attention_loops.h"
#include "engine/cpu/loops.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

// Returns the instruction sets that the processor has, as far as the program is compiled for them.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> sets{"baseline", "avx2", "avx512"};
  while (sets.back() != cpu::instruction_set()) sets.pop_back();
  return sets;
}

class AttentionLoopsOfSet : public testing::TestWithParam<std::string> {
 protected:
  const cpu::AttentionLoops& loops = cpu::attention_loops(GetParam().c_str());
  Random random{12};
  std::vector<float> numbers(std::int64_t count) {
    std::vector<float> list(static_cast<std::size_t>(count));
    for (float& number : list) number = uniform(random, -1, 1);
    return list;
  }
};
INSTANTIATE_TEST_SUITE_P(, AttentionLoopsOfSet, testing::ValuesIn(instruction_sets()),
                         [](const auto& test) { return test.param; });

TEST_P(AttentionLoopsOfSet, Multiply) {
  for (const std::int64_t m : {1, 3, 4, 9}) {
    for (const std::int64_t n : {1, 7, 16, 33, 63, 96}) {
      const std::int64_t k = 2 * m + 1, gap = 3;
      const std::vector<float> a = numbers(m * (k + gap)), b = numbers(k * (n + gap));
      std::vector<float> out(static_cast<std::size_t>(m * (n + gap)), -7.0f);
      loops.multiply(m, n, k, a.data(), k + gap, b.data(), n + gap, out.data(), n + gap);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n + gap; ++j) {
          double sum = j < n ? 0 : -7;
          for (std::int64_t t = 0; j < n && t < k; ++t)
            sum += static_cast<double>(a[static_cast<std::size_t>(i * (k + gap) + t)]) *
                   static_cast<double>(b[static_cast<std::size_t>(t * (n + gap) + j)]);
          ASSERT_NEAR(out[static_cast<std::size_t>(i * (n + gap) + j)], sum, 1e-5)
              << m << " × " << n << ": " << i << ", " << j;
        }
      }
    }
  }
}

TEST_P(AttentionLoopsOfSet, Transpose) {
  for (const std::int64_t rows : {1, 16, 37}) {
    for (const std::int64_t columns : {1, 15, 64}) {
      const std::vector<float> x = numbers(rows * (columns + 2));
      std::vector<float> out(static_cast<std::size_t>(columns * (rows + 1)), -7.0f);
      loops.transpose(x.data(), columns + 2, rows, columns, out.data(), rows + 1);
      for (std::int64_t c = 0; c < columns; ++c) {
        for (std::int64_t r = 0; r <= rows; ++r)
          ASSERT_EQ(out[static_cast<std::size_t>(c * (rows + 1) + r)],
                    r < rows ? x[static_cast<std::size_t>(r * (columns + 2) + c)] : -7.0f);
      }
    }
  }
}

// Has the keys and values of n tokens in one of the two types, as the caches hold them.
struct Cached {
  std::vector<float> exact;
  std::vector<std::uint16_t> halves;
  std::vector<const void*> rows;
  std::int64_t width;

  Cached(std::vector<float> numbers, DType type, std::int64_t width)
      : exact(std::move(numbers)), halves(exact.size()), width(width) {
    const auto count = std::ssize(exact) / width;
    if (type == DType::kBFloat16) {
      cpu::round_row(exact.data(), std::ssize(exact), halves.data());
      cpu::round_in_place(exact.data(), std::ssize(exact));
    }
    for (std::int64_t t = 0; t < count; ++t)
      rows.push_back(type == DType::kBFloat16 ? static_cast<const void*>(halves.data() + t * width)
                                              : static_cast<const void*>(exact.data() + t * width));
  }
  double at(std::int64_t token, std::int64_t column) const {
    return static_cast<double>(exact[static_cast<std::size_t>(token * width + column)]);
  }
};

// Returns the sum of factors[i] · other(i) for n of them.
template <class Other>
double dot(const float* factors, std::int64_t n, const Other& other) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(factors[i]) * other(i);
  return sum;
}

TEST_P(AttentionLoopsOfSet, ScoreAndMix) {
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    for (const std::int64_t head : {1, 8, 12, 32, 40, 64, 72, 128}) {
      for (const std::int64_t count : {1, 2, 5, 8, 9, 16, 17, 31, 40}) {
        const std::int64_t key_heads = 2, group = count % 3 + 1, heads = key_heads * group;
        const Cached cached(numbers(count * 2 * key_heads * head), type, 2 * key_heads * head);
        const cpu::KeyRows keys{.keys = cached.rows.data(),
                                .type = type,
                                .count = count,
                                .key_heads = key_heads,
                                .head = head,
                                .group = group};
        const std::vector<float> query = numbers(heads * head), weights = numbers(heads * count);
        std::vector<float> room(query.size()), scores(weights.size()), out(query.size());
        loops.score(query.data(), keys, room.data(), scores.data());
        loops.mix(weights.data(), keys, out.data());
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t key = h / group * head, value = key + key_heads * head;
          for (std::int64_t t = 0; t < count; ++t)
            ASSERT_NEAR(scores[static_cast<std::size_t>(h * count + t)],
                        dot(query.data() + h * head, head,
                            [&](std::int64_t i) { return cached.at(t, key + i); }),
                        2e-5)
                << "head " << h << " of " << head << " columns, key " << t << " of " << count;
          for (std::int64_t i = 0; i < head; ++i)
            ASSERT_NEAR(out[static_cast<std::size_t>(h * head + i)],
                        dot(weights.data() + h * count, count,
                            [&](std::int64_t t) { return cached.at(t, value + i); }),
                        2e-5)
                << "head " << h << ", column " << i << " of " << head << ", " << count << " keys";
        }
      }
    }
  }
}

// A NaN has 22 bits of any kind, and must stay one with each.
TEST(CpuLoopsTest, NaNStaysNaN) {
  for (const std::uint32_t bits : {0x7fc00000u, 0x7fc00001u, 0x7fc000ffu, 0x7fffffffu, 0xffc12345u,
                                   0xffffffffu, 0x7f800001u}) {
    for (const std::int64_t n : {1, 16, 37}) {
      for (const std::int64_t at : {std::int64_t{0}, n - 1}) {
        std::vector<float> x(static_cast<std::size_t>(n), 0.5f);
        x[static_cast<std::size_t>(at)] = std::bit_cast<float>(bits);
        EXPECT_TRUE(std::isnan(cpu::sum_logits(x.data(), n).sum)) << bits;
        for (const Activation activation :
             {Activation::kSwish, Activation::kGelu, Activation::kGeluTanh}) {
          std::vector<float> out(x.size());
          cpu::finish_row(x.data(), nullptr, activation, n, out.data());
          EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(at)]))
              << bits << ", activation " << static_cast<int>(activation);
        }
        cpu::softmax_row(x.data(), 1, 0, nullptr, n);
        EXPECT_TRUE(std::all_of(x.begin(), x.end(), [](float value) { return std::isnan(value); }))
            << bits;
      }
    }
  }
}

TEST(CpuLoopsTest, SumsOfExponentials) {
  for (const float low : {-200.0f, -87.0f, -30.0f, -1.0f}) {
    for (const std::int64_t n : {1, 5, 16, 100}) {
      std::vector<float> logits(static_cast<std::size_t>(n));
      Random random{13};
      for (float& logit : logits) logit = uniform(random, low, 3);
      const auto [max, sum] = cpu::sum_logits(logits.data(), n);
      EXPECT_EQ(max, *std::max_element(logits.begin(), logits.end()));
      double expected = 0;
      for (const float logit : logits) expected += std::exp(static_cast<double>(logit - max));
      EXPECT_NEAR(sum, expected, 1e-6 * expected);
    }
  }
}

}  // namespace
}  // namespace xlate::test
