// This header has what the tests of attention compare with: the attention of one row in double
// precision, a paged cache with a copy of its contents in the host's memory, and the comparison of
// a result with an error bound.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>

#include "tests/support.h"

namespace xlate::test {

/// Points to a key [D] and its value [D].
struct KeyRow {
  const double* key;
  const double* value;
};

/// Returns the bias that is added to the score of a head and a key, by their numbers.
using BiasOf = std::function<double(std::int64_t head, std::size_t key)>;

/// Returns softmax(q·Kᵀ · scale + bias)·V for each head of one row, [width].
inline std::vector<double> attention(const double* query, const std::vector<KeyRow>& keys,
                                     std::int64_t width, int heads, double scale,
                                     const BiasOf& bias_of) {
  const std::int64_t part = width / heads;
  std::vector<double> out(static_cast<std::size_t>(width));
  for (std::int64_t head = 0; head < heads; ++head) {
    std::vector<double> scores;
    for (std::size_t t = 0; t < keys.size(); ++t) {
      double dot = 0;
      for (std::int64_t i = head * part; i < (head + 1) * part; ++i)
        dot += query[i] * keys[t].key[i];
      scores.push_back(dot * scale + bias_of(head, t));
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - max);
    for (std::size_t t = 0; t < keys.size(); ++t) {
      for (std::int64_t i = head * part; i < (head + 1) * part; ++i)
        out[static_cast<std::size_t>(i)] += scores[t] / sum * keys[t].value[i];
    }
  }
  return out;
}

/// Returns the usual attention: scores are divided by the root of a head's width, without a bias.
inline std::vector<double> attention(const double* query, const std::vector<KeyRow>& keys,
                                     std::int64_t width, int heads) {
  return attention(query, keys, width, heads, 1 / std::sqrt(static_cast<double>(width / heads)),
                   [](std::int64_t, std::size_t) { return 0.0; });
}

/// Returns rows whose columns from `first` on, which are keys and values, are rounded as the caches
/// of the backend hold them.
inline Matrix as_cached(Lab& lab, Matrix rows, std::int64_t first) {
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    for (std::int64_t c = first; c < rows.columns; ++c)
      rows(r, c) = rounded(lab->cache_type(), rows(r, c));
  }
  return rows;
}

/// Holds a paged cache of random keys and values. Its pages lie in a random order, which is not the
/// order of the slots. `contents` is what the cache should hold.
struct Pages {
  Pages(Lab& lab, Random& random, std::int64_t slots, std::int64_t per_slot,
        std::int64_t page_tokens, std::int64_t keys_per_token, std::int64_t width)
      : table(static_cast<std::size_t>(slots * per_slot)), width(width) {
    std::iota(table.begin(), table.end(), 0);
    for (std::size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[random() % i]);
    const DType type = lab->cache_type();
    contents =
        random_matrix(random, slots * per_slot * page_tokens * keys_per_token, 2 * width, type);
    cache = {lab.put(contents, type), lab.put(table), per_slot, page_tokens, keys_per_token};
  }
  /// Returns the row of `contents` with the key and the value of a slot's token t. In a self cache
  /// each beam has a row of its own; in a cross cache `beam` is 0.
  std::int64_t row(std::int64_t slot, std::int64_t t, std::int64_t beam) const {
    const std::int64_t page =
        table[static_cast<std::size_t>(slot * cache.pages_per_slot + t / cache.page_tokens)];
    return (page * cache.page_tokens + t % cache.page_tokens) * cache.keys_per_token + beam;
  }
  /// Puts a key and its value, [2 · width], into a row of `contents`, rounded as the cache does it.
  void store(std::int64_t row, const double* key_value) {
    for (std::int64_t c = 0; c < 2 * width; ++c)
      contents(row, c) = rounded(cache.pages.dtype, key_value[c]);
  }
  KeyRow at(std::int64_t slot, std::int64_t t, std::int64_t beam) const {
    const double* key = &contents.values[static_cast<std::size_t>(row(slot, t, beam) * 2 * width)];
    return {key, key + width};
  }

  std::vector<std::int32_t> table;
  std::int64_t width;
  Matrix contents;
  PagedCache cache;
};

/// Expects that a row of the output of attention is the expected one. The outputs are averages of
/// values in [−1, 1], so the bound is absolute. The dot product of D/heads terms and the
/// exponential change a weight of the average by at most 2⁻¹⁸ of itself, and on a GPU by twice as
/// much, since its exponential has an error of 2 + 1.16·|x| units in the last place. The output is
/// rounded once. A GPU's tensor cores take 16-bit weights, which changes an average by at most one
/// more unit.
inline void expect_attention(const Matrix& found, std::int64_t row,
                             const std::vector<double>& expected, const BackendUnderTest& backend,
                             const std::string& what) {
  const double bound =
      (backend.cuda ? 0x1p-16 : 0x1p-17) + (backend.cuda ? 2 : 1) * unit_roundoff(backend.type);
  for (std::int64_t c = 0; c < found.columns; ++c) {
    ASSERT_NEAR(found(row, c), expected[static_cast<std::size_t>(c)], bound)
        << what << ": row " << row << ", column " << c;
  }
}

/// Returns the elements of a row.
inline const double* row_of(const Matrix& matrix, std::int64_t row) {
  return &matrix.values[static_cast<std::size_t>(row * matrix.columns)];
}

}  // namespace xlate::test
