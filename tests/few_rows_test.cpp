// The kernel for few rows against loops in double precision: norms and products together, long products, attention over many keys. Other
// shapes of each verb, and search, are in the suites that run on every backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/support.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

class FewRowsTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
  Random random{3};

  Matrix scaled(std::int64_t rows, std::int64_t columns, double by) {
    Matrix matrix = random_matrix(random, rows, columns, lab.type());
    for (double& value : matrix.values) value = rounded(lab.type(), value * by);
    return matrix;
  }
  void expect_close(const Matrix& found, const Matrix& expected, double error, const std::string& what) {
    for (std::size_t i = 0; i < found.values.size(); ++i) {
      ASSERT_NEAR(found.values[i], expected.values[i], error + 2 * rounding(lab.type(), expected.values[i])) << what << ": element " << i;
    }
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FewRowsTest);
INSTANTIATE_TEST_SUITE_P(, FewRowsTest, testing::ValuesIn(cuda_backends(true)), backend_name);

Matrix normed(const Matrix& x, const Matrix& added, const Matrix& gain, const Matrix& bias, DType type) {
  Matrix out(x.rows, x.columns);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double mean = 0, variance = 0;
    const auto at = [&](std::int64_t c) { return x(r, c) + (added.rows ? added(r, c) : 0); };
    for (std::int64_t c = 0; c < x.columns; ++c) mean += at(c) / static_cast<double>(x.columns);
    for (std::int64_t c = 0; c < x.columns; ++c) variance += (at(c) - mean) * (at(c) - mean) / static_cast<double>(x.columns);
    for (std::int64_t c = 0; c < x.columns; ++c) out(r, c) = rounded(type, (at(c) - mean) / std::sqrt(variance + 1e-5) * gain(0, c) + bias(0, c));
  }
  return out;
}

Matrix product(const Matrix& x, const Matrix& w, const Matrix& b) {
  Matrix out(x.rows, w.rows);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t n = 0; n < w.rows; ++n) {
      double sum = b.rows ? b(0, n) : 0;
      for (std::int64_t c = 0; c < x.columns; ++c) sum += x(r, c) * w(n, c);
      out(r, n) = sum;
    }
  }
  return out;
}

enum class Goes { kElsewhere, kToX, kToResidual };

TEST_P(FewRowsTest, NormAndProduct) {
  int turn = 0;
  for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 100}) {
    for (const std::int64_t in : {8, 40, 512}) {
      for (const std::int64_t out_width : {1, 135, 1540}) {
        const Goes goes = static_cast<Goes>(++turn % 3);
        const bool with_residual = goes == Goes::kToResidual || turn % 2, with_bias = turn % 5 < 3;
        const std::int64_t gap = turn % 4 == 0 ? 8 : 0;
        const Matrix x = scaled(rows, in, 1), added = with_residual ? scaled(rows, in, 1) : Matrix{};
        const Matrix gain = random_matrix(random, 1, in, DType::kFloat32), bias = random_matrix(random, 1, in, DType::kFloat32);
        const Matrix w = scaled(out_width, in, 0.125), b = with_bias ? scaled(1, out_width, 1) : Matrix{};
        const Norm norm{lab.put(gain, DType::kFloat32), lab.put(bias, DType::kFloat32), 1e-5f};
        const Tensor input = lab.put(x, lab.type(), gap), residual = with_residual ? lab.put(added, lab.type()) : Tensor{};
        const Tensor rows_out = goes == Goes::kElsewhere ? lab.room(rows, in, lab.type(), gap) : goes == Goes::kToX ? input : residual;
        const Tensor out = lab.room(rows, out_width, lab.type(), turn % 3);
        lab->norm_linear(lab.queue(), input, residual, norm, rows_out, {lab.put(w, lab.type(), gap), with_bias ? lab.put(b, lab.type()) : Tensor{}}, Activation::kRelu, out);
        const std::string what = fmt::format("{} rows, {} to {}, turn {}", rows, in, out_width, turn);
        expect_close(lab.get(rows_out), normed(x, added, gain, bias, lab.type()), 1e-5, what + ", normed");
        // From the rows that were found: a rounding that falls the other way is no error of the product.
        Matrix expected = product(lab.get(rows_out), w, b);
        for (double& value : expected.values) value = std::max(value, 0.0);
        expect_close(lab.get(out), expected, 1e-5 * static_cast<double>(in) / 64 + 1e-5, what);
        lab.clear();
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(FewRowsTest, LongProducts) {
  for (const std::int64_t rows : {1, 4, 7, 8, 29}) {
    for (const std::int64_t in : {520, 2048, 4096}) {
      for (const std::int64_t out_width : {3, 512, 9000}) {
        if (in * out_width > 4'000'000) continue;
        const Matrix x = scaled(rows, in, 1), w = scaled(out_width, in, 0.125), b = scaled(1, out_width, 1), r = scaled(rows, out_width, 1);
        const Tensor out = lab.put(r, lab.type());  // the residual too
        lab->linear(lab.queue(), lab.put(x, lab.type()), {lab.put(w, lab.type()), lab.put(b, lab.type())}, Activation::kNone, out, out);
        Matrix expected = product(x, w, b);
        for (std::size_t i = 0; i < expected.values.size(); ++i) expected.values[i] += r.values[i];
        expect_close(lab.get(out), expected, 2e-5, fmt::format("{} rows, {} to {}", rows, in, out_width));
        lab.clear();
        if (HasFatalFailure()) return;
      }
    }
  }
}

// softmax(q·K / √width)·V of one head.
std::vector<double> attend(const double* query, const std::vector<const double*>& keys, std::int64_t width, std::int64_t value_offset) {
  std::vector<double> scores, out(static_cast<std::size_t>(width));
  for (const double* key : keys) scores.push_back(std::inner_product(query, query + width, key, 0.0) / std::sqrt(static_cast<double>(width)));
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - max);
  for (std::size_t t = 0; t < keys.size(); ++t) {
    for (std::int64_t i = 0; i < width; ++i) out[static_cast<std::size_t>(i)] += scores[t] / sum * keys[t][value_offset + i];
  }
  return out;
}

TEST_P(FewRowsTest, Attention) {
  int turn = 0;
  for (const std::int64_t head : {8, 24, 64, 128}) {
    for (const std::int64_t beams : {1, 3, 4, 8}) {
      for (const std::int32_t length : {0, 1, 30, 63, 64, 65, 130, 300, 700}) {
        const bool self = ++turn % 2;
        if (!self && length == 0) continue;
        const int heads = 2;
        const std::int64_t width = heads * head, page_tokens = 16, per_slot = 44, longest = 704, lines = self ? beams : 1;
        Ints table(static_cast<std::size_t>(per_slot));
        std::iota(table.rbegin(), table.rend(), 0);
        Matrix contents = random_matrix(random, per_slot * page_tokens * lines, 2 * width, lab.type());
        std::vector<std::uint8_t> ancestors(static_cast<std::size_t>(longest * beams));
        for (auto& ancestor : ancestors) ancestor = static_cast<std::uint8_t>(whole(random, 0, static_cast<int>(beams) - 1));
        const PagedCache cache{lab.put(contents, lab.type()), lab.put(table), per_slot, page_tokens, lines};
        const SearchState state{.length = lab.put(Ints{length}), .done = lab.put(Ints{0}), .ancestor = lab.put(ancestors), .slots = 1, .beams = beams, .longest = longest};
        const StepRows rows{lab.put(Ints{0}), 1, beams};
        const Matrix query = random_matrix(random, beams, (self ? 3 : 1) * width, lab.type());
        const Tensor out = lab.room(beams, width, lab.type(), 3);
        if (self) lab->attend_self(lab.queue(), lab.put(query, lab.type()), cache, state, rows, heads, out);
        else lab->attend_cross(lab.queue(), lab.put(query, lab.type()), cache, lab.put(Ints{length}), rows, heads, out);
        const auto row_of = [&](std::int32_t t, std::int64_t line) { return (table[static_cast<std::size_t>(t / page_tokens)] * page_tokens + t % page_tokens) * lines + line; };
        Matrix expected(beams, width);
        for (std::int64_t r = 0; r < beams; ++r) {
          for (std::int64_t c = 0; self && c < 2 * width; ++c) contents(row_of(length, r), c) = query(r, width + c);
        }
        for (std::int64_t r = 0; r < beams; ++r) {
          for (int h = 0; h < heads; ++h) {
            std::vector<const double*> keys;
            for (std::int32_t t = 0; t < length; ++t) keys.push_back(&contents.values[static_cast<std::size_t>(row_of(t, self ? ancestors[static_cast<std::size_t>(t * beams + r)] : 0) * 2 * width + h * head)]);
            if (self) keys.push_back(&contents.values[static_cast<std::size_t>(row_of(length, r) * 2 * width + h * head)]);
            const auto row = attend(&query.values[static_cast<std::size_t>(r * query.columns + h * head)], keys, head, width);
            std::copy(row.begin(), row.end(), &expected(r, h * head));
          }
        }
        expect_close(lab.get(out), expected, 2e-5, fmt::format("heads of {}, {} beams, {} keys, self {}", head, beams, length, self));
        EXPECT_EQ(lab.get(cache.pages).values, contents.values) << "the new keys and values, and nothing else";
        lab.clear();
        if (HasFatalFailure()) return;
      }
    }
  }
}

}  // namespace
}  // namespace xlate::test
