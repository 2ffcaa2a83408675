// Each verb of a backend against loops in double precision written here, over awkward shapes.
// Bounds: one rounding to the type of the output, and one float32 rounding for each term of the
// sums, relative to the sum of the terms' magnitudes. In float16 and bfloat16 a product may be
// rounded to the type before its activation or its bias: one more rounding of a partial sum, by
// 2⁻¹¹ or 2⁻⁸ of the terms' magnitudes at most, stretched as the activation does. In float32 there
// is none.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/linear_norm.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using Ints = std::vector<std::int32_t>;

class BackendTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
  Random random{7};

  // |found − expected| ≤ rounding(expected) + terms·2⁻²⁴·magnitude + more, and all is written.
  void expect_near(const Matrix& found, const Matrix& expected, const Matrix& magnitude,
                   double terms, const std::string& what, const Matrix& more = {},
                   bool sums = false) {
    ASSERT_EQ(found.values.size(), expected.values.size());
    for (std::size_t i = 0; i < found.values.size(); ++i) {
      const double bound = rounding(sums ? DType::kFloat32 : lab.type(), expected.values[i]) +
                           terms * 0x1p-24 * magnitude.values[i] +
                           (more.values.empty() ? 0 : more.values[i]);
      ASSERT_LE(std::fabs(found.values[i] - expected.values[i]), bound)
          << what << ": row " << static_cast<std::int64_t>(i) / found.columns << ", column "
          << static_cast<std::int64_t>(i) % found.columns << ": found " << found.values[i]
          << ", expected " << expected.values[i];
    }
  }
  // Layer norm of x + r (or x alone); `magnitude` is what its errors are relative to.
  static Matrix normalized(const Matrix& x, const Matrix& r, const Matrix& gain, const Matrix& bias,
                           double epsilon, Matrix& magnitude) {
    Matrix out(x.rows, x.columns);
    magnitude = out;
    for (std::int64_t i = 0; i < x.rows; ++i) {
      std::vector<double> y;
      for (std::int64_t c = 0; c < x.columns; ++c)
        y.push_back(x(i, c) + (r.values.empty() ? 0 : r(i, c)));
      double mean = 0, variance = 0, largest = 0;
      for (const double value : y) mean += value / static_cast<double>(x.columns);
      for (const double value : y)
        variance += (value - mean) * (value - mean) / static_cast<double>(x.columns),
            largest = std::max(largest, std::fabs(value));
      const double inverse = 1 / std::sqrt(variance + epsilon);
      for (std::int64_t c = 0; c < x.columns; ++c) {
        const double d = y[static_cast<std::size_t>(c)] - mean;
        out(i, c) = d * inverse * gain(0, c) + bias(0, c);
        // The mean's own error, stretched as the row is, and again as a part of each difference in
        // the variance.
        magnitude(i, c) = (largest + std::fabs(d)) * inverse * std::fabs(gain(0, c)) *
                              (1 + std::fabs(d) * inverse) +
                          std::fabs(bias(0, c));
      }
    }
    return out;
  }
  static Matrix constant(const Matrix& like, double value) {
    Matrix matrix(like.rows, like.columns);
    std::fill(matrix.values.begin(), matrix.values.end(), value);
    return matrix;
  }
};
INSTANTIATE_TEST_SUITE_P(, BackendTest, testing::ValuesIn(backends()), backend_name);

TEST_P(BackendTest, TellsWhatItIs) {
  const DeviceInfo info = lab->info();
  for (const std::string& text : {info.kind, info.name, info.instruction_set, info.library})
    EXPECT_FALSE(text.empty());
  if (info.kind == "cpu") {
    EXPECT_EQ(info.threads, GetParam().name.back() - '0');
  }
  EXPECT_GT(lab->cache_budget(), 0u);
}

TEST_P(BackendTest, MemoryGoesThereAndBack) {
  EXPECT_EQ(lab->allocate(0).bytes(), 0u);
  const Buffer buffer = lab->allocate(1000);
  EXPECT_GE(buffer.bytes(), 1000u);
  std::vector<std::byte> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  const auto other = lab->make_queue();
  lab->upload(lab.queue(), bytes, buffer.data());
  const std::vector<std::byte> sent = bytes;
  bytes.assign(1000, std::byte{0});  // what was uploaded was copied
  lab->order(lab.queue(), *other);
  const auto ticket = lab->read_later(*other, {buffer.as<std::byte>() + 3, 990});
  const auto back = ticket->wait();
  EXPECT_TRUE(ticket->ready());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), sent.begin() + 3, sent.begin() + 993));
  lab->upload(*other, {}, buffer.data());
  expect_error([&] { lab->allocate(std::size_t{1} << 60); }, {"memory"});
}

TEST_P(BackendTest, UploadsOfAnySizeAndPlace) {
  for (const std::size_t size : {1u, 4u, 7u, 16u, 4096u, 65536u, 65540u, 300001u}) {
    for (const std::size_t first : {0u, 4u, 5u, 16u}) {
      const Buffer buffer = lab->allocate(size + 48);
      lab->clear(lab.queue(), buffer.data(), size + 48);
      std::vector<std::byte> bytes(size), expected(size + 48);
      for (std::size_t i = 0; i < size; ++i)
        bytes[i] = expected[first + i] = static_cast<std::byte>(whole(random, 1, 255));
      lab->upload(lab.queue(), bytes, buffer.as<char>() + first);
      const auto ticket = lab->read_later(lab.queue(), {buffer.as<std::byte>(), size + 48});
      const auto back = ticket->wait();
      EXPECT_TRUE(std::equal(back.begin(), back.end(), expected.begin()))
          << size << " bytes from " << first << " on";
    }
  }
}

TEST_P(BackendTest, ChangesOnlyWhatIsNamed) {
  for (const std::int64_t count : {0, 1, 31, 700}) {
    std::vector<std::int32_t> table(1000);
    for (std::int32_t i = 0; i < 1000; ++i) table[static_cast<std::size_t>(i)] = i;
    std::int32_t* const device = lab.put(table);
    std::vector<TableUpdate> changes;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto place = static_cast<std::int32_t>(i * 7 % 1000);
      changes.push_back({place, -1 - place});
      table[static_cast<std::size_t>(place)] = -1 - place;
    }
    lab->update_table(lab.queue(), changes, device);
    changes.assign(changes.size(), {0, 0});  // they were copied
    EXPECT_EQ(lab.array<std::int32_t>(device, 1000), table);
  }
}

TEST_P(BackendTest, NumbersInItsOwnTypeAndZeros) {
  for (const int count : {1, 2, 31, 1000}) {
    std::vector<float> numbers;
    for (int i = 0; i < count; ++i)
      numbers.push_back(uniform(random, -70000, 70000) *
                        static_cast<float>(std::ldexp(1, -whole(random, 0, 30))));
    const Tensor own = lab.uninitialized(1, count, lab.type()),
                 floats = lab.uninitialized(1, count, DType::kFloat32);
    lab->upload_as(lab.queue(), numbers, lab.type(), own.data);
    lab->upload_as(lab.queue(), numbers, DType::kFloat32, floats.data);
    const Matrix found = lab.get(own), same = lab.get(floats);
    for (int i = 0; i < count; ++i) {
      const double number = numbers[static_cast<std::size_t>(i)];
      const bool too_large = lab.type() == DType::kFloat16 && std::fabs(number) >= 65520;
      EXPECT_EQ(found(0, i), too_large
                                 ? std::copysign(std::numeric_limits<double>::infinity(), number)
                                 : rounded(lab.type(), number));
      EXPECT_EQ(same(0, i), number);
    }
    lab->clear(lab.queue(), own.data, static_cast<std::size_t>(count) * size_of(lab.type()));
    for (const double value : lab.get(own).values) EXPECT_EQ(value, 0);
    lab.clear();
  }
}

// Without gaps and with them: embeddings of N tokens, and of a step's hypotheses.
TEST_P(BackendTest, Embed) {
  for (const std::int64_t width : {1, 2, 7, 33, 256, 512}) {
    for (const int rows : {1, 2, 31, 32, 33, 97}) {
      if (left_out(static_cast<int>(width) + rows, 5)) continue;
      const std::int64_t gap = rows % 2 ? 5 : 0;
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
      expect_near(lab.get(out), expected, magnitude, 2, fmt::format("{} rows of {}", rows, width));
      lab.clear();
    }
  }
}

TEST_P(BackendTest, EmbedStep) {
  for (const std::int64_t beams : {1, 3, 8}) {
    const std::int64_t slots = 5, width = 9;
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
    expect_near(lab.get(out), expected, constant(expected, 4), 2, fmt::format("{} beams", beams));
    lab.clear();
  }
}

// The stream is normalized alone, and with something added to it, which is in the type of rows or
// float32.
TEST_P(BackendTest, AddNorm) {
  int turn = 0;
  for (const std::int64_t width : {1, 2, 3, 17, 64, 511, 512, 1024}) {
    for (const int rows : {1, 9, 33, 70}) {
      for (const bool adds : {false, true}) {
        if (left_out(++turn, 5)) continue;
        const std::int64_t gap = rows > 9 ? 3 : 0;
        // One row is far from zero, one is constant.
        Matrix x = random_matrix(random, rows, width, lab.type()),
               r = random_matrix(random, rows, width, lab.type());
        for (std::int64_t c = 0; c < width; ++c) {
          x(0, c) = rounded(lab.type(), x(0, c) + 8);
          if (rows > 1) x(1, c) = 0.5, r(1, c) = -0.125;
        }
        const Matrix gain = random_matrix(random, 1, width, DType::kFloat32),
                     bias = random_matrix(random, 1, width, DType::kFloat32);
        const Norm norm{lab.put(gain, DType::kFloat32), lab.put(bias, DType::kFloat32), 1e-5f};
        const DType sums = turn % 3 ? lab.type() : DType::kFloat32;
        const Tensor stream = lab.put(x, lab.type(), gap);
        lab->add_norm(lab.queue(), stream, adds ? lab.put(r, sums, gap + 2) : Tensor{}, norm);
        Matrix magnitude;
        const Matrix expected = normalized(x, adds ? r : Matrix{}, gain, bias,
                                           static_cast<double>(norm.epsilon), magnitude);
        expect_near(
            lab.get(stream), expected, magnitude, static_cast<double>(width) + 8,
            fmt::format("{} rows of {}, added {}", rows, width, adds ? name_of(sums) : "nothing"));
        lab.clear();
        if (HasFatalFailure()) return;
      }
    }
  }
}

// What the rounded rows are short of is all that is left where they are taken off: the norm makes
// it large. In float32 nothing is.
TEST_P(BackendTest, WhatRoundingTakesOffIsKept) {
  if (lab.type() == DType::kFloat32) GTEST_SKIP() << "float32 rows have no rest";
  constexpr double kNear = 0.06;  // of remainders that are normalized: the rest is one of 256 parts
                                  // of half a place on either side
  int turn = 0;
  for (const std::int64_t width : {7, 33, 250, 256, 512, 1024}) {
    for (const int rows : {1, 9, 33}) {
      if (left_out(++turn, 5)) continue;
      const std::int64_t gap = rows == 33 ? 3 : rows == 9 ? 16 : 0;
      const Norm plain{lab.put(constant(Matrix(1, width), 1), DType::kFloat32),
                       lab.put(Matrix(1, width), DType::kFloat32), 1e-20f};
      const auto expect_rest = [&](const ResidualRows& wide, const Matrix& exact,
                                   const char* what) {
        Matrix negative = lab.get(wide.rounded), remainder = exact, magnitude;
        for (std::size_t i = 0; i < exact.values.size(); ++i)
          remainder.values[i] -= negative.values[i], negative.values[i] *= -1;
        lab->add_norm(lab.queue(), wide, lab.put(negative, lab.type(), gap), plain);
        const Matrix found = lab.get(wide.rounded),
                     expected = normalized(remainder, {}, constant(Matrix(1, width), 1),
                                           Matrix(1, width), 1e-20, magnitude);
        for (std::size_t i = 0; i < found.values.size(); ++i) {
          ASSERT_NEAR(found.values[i], expected.values[i],
                      kNear + 4 * unit_roundoff(lab.type()) * std::fabs(expected.values[i]))
              << what << ", " << rows << " rows of " << width << ", element " << i;
        }
      };
      // Embedded, …
      const Matrix table = random_matrix(random, 11, width, lab.type()),
                   positions = random_matrix(random, 20, width, DType::kFloat32);
      Ints ids, places;
      for (int i = 0; i < rows; ++i)
        ids.push_back(whole(random, 0, 10)), places.push_back(whole(random, 0, 19));
      const Embedding embedding{lab.put(table, lab.type()), lab.put(positions, DType::kFloat32), 3};
      const PackedRows packed{.count = rows, .ids = lab.put(ids), .positions = lab.put(places)};
      const auto embedded = [&] {
        const ResidualRows x(lab.uninitialized(rows, width, lab.type(), gap),
                             lab.uninitialized(rows, width, DType::kInt8, gap));
        lab->embed(lab.queue(), embedding, packed, x);
        return x;
      };
      Matrix exact(rows, width);
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < width; ++c)
          exact(r, c) = static_cast<float>(table(ids[static_cast<std::size_t>(r)], c) * 3 +
                                           positions(places[static_cast<std::size_t>(r)], c));
      }
      expect_rest(embedded(), exact, "embedded");
      if (HasFatalFailure()) return;
      // … and normalized, with something added and as they are.
      const Matrix added = random_matrix(random, rows, width, lab.type());
      const Matrix gain = random_matrix(random, 1, width, DType::kFloat32),
                   shift = random_matrix(random, 1, width, DType::kFloat32);
      const Norm norm{lab.put(gain, DType::kFloat32), lab.put(shift, DType::kFloat32), 1e-5f};
      for (const bool adds : {true, false}) {
        const ResidualRows x = embedded();
        lab->add_norm(lab.queue(), x, adds ? lab.put(added, lab.type(), gap) : Tensor{}, norm);
        Matrix magnitude;
        expect_rest(x,
                    normalized(exact, adds ? added : Matrix{}, gain, shift,
                               static_cast<double>(norm.epsilon), magnitude),
                    "normalized");
        if (HasFatalFailure()) return;
      }
      lab.clear();
    }
  }
}

double activated(double x, Activation activation) {
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

// No activation here is steeper than this.
constexpr double kSteepest = 1.2;

TEST_P(BackendTest, Linear) {
  int turn = 0;
  for (const int rows : {1, 2, 3, 4, 5, 7, 8, 9, 10, 31, 65}) {
    for (const int in : {1, 7, 33, 128}) {
      for (const int out_width : {1, 2, 15, 130}) {
        for (const Activation activation :
             {Activation::kNone, Activation::kRelu, Activation::kSwish, Activation::kGelu,
              Activation::kGeluTanh}) {
          // The other choices change from case to case, each in its own rhythm.
          if (left_out(++turn, 40)) continue;
          const bool bias = turn % 2, sums = activation == Activation::kNone && turn % 3 == 0;
          const std::int64_t gap = turn % 7 < 4 ? 0 : 3;
          const Matrix x = random_matrix(random, rows, in, lab.type()),
                       w = random_matrix(random, out_width, in, lab.type());
          const Matrix b = random_matrix(random, 1, out_width, lab.type());
          const Linear layer{lab.put(w, lab.type(), gap), bias ? lab.put(b, lab.type()) : Tensor{}};
          const Tensor out =
              lab.uninitialized(rows, out_width, sums ? DType::kFloat32 : lab.type(), gap);
          lab->linear(lab.queue(), lab.put(x, lab.type(), gap), layer, activation, out);
          Matrix expected(rows, out_width), magnitude(rows, out_width),
              rounded_before(rows, out_width);
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
          expect_near(
              lab.get(out), expected, magnitude, in + 16,
              fmt::format("[{}, {}]·[{}, {}]ᵀ, activation {}, bias {}, sums {}, gap {}", rows, in,
                          out_width, in, static_cast<int>(activation), bias, sums, gap),
              rounded_before, sums);
          lab.clear();
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// As a network calls it: a product whose sums go into the norm behind it. Factors are few
// sixteenths, so that products are exact in float32, in which they go into the norm, and in float16
// beyond 8 are not. In 16-bit types all but some have a rest: nothing is in it.
TEST_P(BackendTest, LinearNorm) {
  const auto sixteenths = [&](std::int64_t rows, std::int64_t columns) {
    Matrix matrix(rows, columns);
    for (double& value : matrix.values) value = whole(random, -16, 16) / 16.0;
    return matrix;
  };
  int turn = 0;
  for (const auto& [in, width] :
       {std::pair{7, 15}, {64, 256}, {512, 512}, {128, 512}, {320, 256}, {96, 384}}) {
    for (const std::int64_t rows :
         {1, 33, 512, 801, 960}) {  // bias and output turn with the shapes as well as with the rows
      if (left_out(++turn, 3)) continue;
      const std::int64_t gap = rows == 801 ? 16 : 0;
      const Matrix x = sixteenths(rows, in), w = sixteenths(width, in), b = sixteenths(1, width),
                   r = random_matrix(random, rows, width, lab.type());
      const Matrix gain = random_matrix(random, 1, width, DType::kFloat32),
                   shift = random_matrix(random, 1, width, DType::kFloat32);
      const Norm norm{lab.put(gain, DType::kFloat32), lab.put(shift, DType::kFloat32), 1e-5f};
      const Linear layer{lab.put_weight(w), turn % 2 ? lab.put(b, lab.type()) : Tensor{}};
      const auto with_rest = [&](const Tensor& rounded) {
        if (lab.type() == DType::kFloat32 || turn % 5 == 0) return ResidualRows(rounded);
        const Tensor low_bits =
            lab.uninitialized(rows, width, DType::kInt8, rounded.stride - width);
        for (std::int64_t row = 0; row < rows; ++row)
          lab->clear(lab.queue(), low_bits.row_range(row, 1).data, static_cast<std::size_t>(width));
        return ResidualRows(rounded, low_bits);
      };
      const Tensor input = lab.put(x, lab.type(), gap),
                   between = lab.uninitialized(rows, width, DType::kFloat32);
      const ResidualRows stream = with_rest(lab.put(r, lab.type(), 2 * gap));
      run_linear_norm(*lab, lab.queue(), input, layer, between, stream, norm);
      Matrix product(rows, width), magnitude;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < width; ++j) {
          double sum = turn % 2 ? b(0, j) : 0;
          for (std::int64_t k = 0; k < in; ++k) sum += x(i, k) * w(j, k);
          product(i, j) = sum;
        }
      }
      const Matrix expected =
          normalized(product, r, gain, shift, static_cast<double>(norm.epsilon), magnitude);
      expect_near(lab.get(stream.rounded), expected, magnitude, static_cast<double>(width) + 8,
                  fmt::format("{} rows, {} → {}", rows, in, width));
      lab.clear();
      if (HasFatalFailure()) return;
    }
  }
}

// Far from zero an activation is 0 or x, and never a NaN.
TEST_P(BackendTest, ActivationsOfLargeValues) {
  Matrix x(1, 12);
  x.values = {-1e4, -200, -88, -60, -20, -5, 5, 20, 60, 88, 200, 1e4};
  for (double& value : x.values) value = rounded(lab.type(), value);
  for (const Activation activation :
       {Activation::kRelu, Activation::kSwish, Activation::kGelu, Activation::kGeluTanh}) {
    Matrix one(12, 12);
    for (std::int64_t i = 0; i < 12; ++i) one(i, i) = 1;
    const Linear layer{lab.put(one, lab.type()), {}};
    const Tensor out = lab.uninitialized(1, 12, lab.type());
    lab->linear(lab.queue(), lab.put(x, lab.type()), layer, activation, out);
    Matrix expected(1, 12);
    for (std::size_t i = 0; i < 12; ++i) expected.values[i] = activated(x.values[i], activation);
    expect_near(lab.get(out), expected, constant(expected, 1), 16,
                fmt::format("activation {}", static_cast<int>(activation)));
    const Matrix found = lab.get(out);
    for (std::size_t i = 6; i < 12; ++i)
      EXPECT_NEAR(found.values[i] / x.values[i], activated(x.values[i], activation) / x.values[i],
                  1e-3 + 2 * unit_roundoff(lab.type()));
    lab.clear();
  }
}

}  // namespace
}  // namespace xlate::test
