// This header has what the tests of a backend's layers compare with: norms and the activations in
// double precision, and the comparison of a result with an error bound.
#pragma once

#include <algorithm>

#include "tests/support.h"

namespace xlate::test {

/// Expects that every element of `found` is within rounding(expected) + terms·2⁻²⁴·magnitude + more
/// of the expected one. An element that was never written is NaN and fails. `type` is the type of
/// the output. All matrices have the same shape, but `more` may be empty.
inline void expect_near(const Matrix& found, DType type, const Matrix& expected,
                        const Matrix& magnitude, double terms, const Matrix& more = {}) {
  ASSERT_EQ(found.values.size(), expected.values.size());
  for (std::size_t i = 0; i < found.values.size(); ++i) {
    const double bound = rounding(type, expected.values[i]) +
                         terms * 0x1p-24 * magnitude.values[i] +
                         (more.values.empty() ? 0 : more.values[i]);
    ASSERT_LE(std::fabs(found.values[i] - expected.values[i]), bound)
        << "row " << static_cast<std::int64_t>(i) / found.columns << ", column "
        << static_cast<std::int64_t>(i) % found.columns << ": found " << found.values[i]
        << ", expected " << expected.values[i];
  }
}

/// Returns the layer norm of each row of x + added, or of x if `added` is empty. Sets `magnitude`
/// to what the errors of the result are relative to.
inline Matrix normalized(const Matrix& x, const Matrix& added, const Matrix& gain,
                         const Matrix& bias, double epsilon, Matrix& magnitude) {
  Matrix out(x.rows, x.columns);
  magnitude = out;
  for (std::int64_t i = 0; i < x.rows; ++i) {
    std::vector<double> y;
    for (std::int64_t c = 0; c < x.columns; ++c)
      y.push_back(x(i, c) + (added.values.empty() ? 0 : added(i, c)));
    double mean = 0, variance = 0, largest = 0;
    for (const double value : y) mean += value / static_cast<double>(x.columns);
    for (const double value : y) {
      variance += (value - mean) * (value - mean) / static_cast<double>(x.columns);
      largest = std::max(largest, std::fabs(value));
    }
    const double inverse = 1 / std::sqrt(variance + epsilon);
    for (std::int64_t c = 0; c < x.columns; ++c) {
      const double d = y[static_cast<std::size_t>(c)] - mean;
      out(i, c) = d * inverse * gain(0, c) + bias(0, c);
      // The mean's own error enters twice: scaled as the row is, and as a part of each difference
      // in the variance.
      magnitude(i, c) = (largest + std::fabs(d)) * inverse * std::fabs(gain(0, c)) *
                            (1 + std::fabs(d) * inverse) +
                        std::fabs(bias(0, c));
    }
  }
  return out;
}

/// Returns the RMS norm of each row, and sets `magnitude` to what the errors of the result are
/// relative to.
inline Matrix rms_normalized(const Matrix& x, const Matrix& gain, const Matrix& shift,
                             double epsilon, Matrix& magnitude) {
  Matrix out(x.rows, x.columns);
  magnitude = out;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < x.columns; ++c) squares += x(r, c) * x(r, c);
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.columns) + epsilon);
    for (std::int64_t c = 0; c < x.columns; ++c) {
      out(r, c) = x(r, c) * inverse * gain(0, c) + shift(0, c);
      magnitude(r, c) = std::fabs(x(r, c) * inverse * gain(0, c)) + std::fabs(shift(0, c));
    }
  }
  return out;
}

/// Returns the activation of x.
inline double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kSwish:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

/// Returns a matrix whose elements are all `value`.
inline Matrix constant(std::int64_t rows, std::int64_t columns, double value) {
  Matrix matrix(rows, columns);
  std::fill(matrix.values.begin(), matrix.values.end(), value);
  return matrix;
}

}  // namespace xlate::test
