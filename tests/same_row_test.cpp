// On a GPU the product of a row has the same bits whatever the number of rows and wherever the row
// is among them. That is why a line's text does not depend on its batch. The tests cover each
// compute type and each epilogue in use, with 1 to 16384 rows: products and the vocabulary at the
// shapes of ende-base, and products with norms at all widths of the fused kernel. The kernel for
// one sentence at a time sums in the same order, which solo_step_test.cpp tests.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <tuple>

#include "engine/search.h"
#include "tests/linear_norm.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

// The input rows, at most kMost, repeat with a prime period, so that equal rows lie at different
// places of a tile.
constexpr std::int64_t kPeriod = 257, kMost = 16384;
constexpr std::int64_t kRows[] = {
    1,    2,    3,    4,    5,    6,    7,    8,    9,    12,   15,   16,   17,    20,    24,
    28,   31,   32,   33,   48,   60,   63,   64,   65,   96,   100,  127,  128,   129,   160,
    192,  255,  256,  257,  320,  384,  500,  512,  513,  640,  768,  1000, 1024,  1025,  1536,
    2000, 2017, 2048, 2049, 3072, 3073, 3841, 4095, 4096, 4097, 6000, 8192, 10001, 12288, 16383};

// Returns the numbers of rows to test, the largest first, because the others are compared with it.
std::vector<std::int64_t> rows_up_to(std::int64_t most) {
  std::vector<std::int64_t> list{most};
  for (const std::int64_t rows : kRows) {
    if (rows < most) list.push_back(rows);
  }
  return list;
}

// Describes a product and the norm behind it, which is that after a sublayer or, with `before`,
// that before the next one.
struct NormedProduct {
  std::int64_t in, width;
  bool bias, before = false, shift = true;
  NormKind kind = NormKind::kLayer;
};

enum class Epilogue { kNone, kBias, kBiasRelu };
constexpr const char* kEpilogues[] = {"none", "bias", "bias and relu"};

class SameRowTest : public OnBackend {
 protected:
  Lab lab{GetParam()};
  Random random{3};

  // Returns random numbers in [−size, size], rounded to the type. The sizes below give products of
  // a few units, as in a network.
  Matrix numbers(std::int64_t rows, std::int64_t columns, float size) {
    Matrix matrix(rows, columns);
    for (double& value : matrix.values) value = rounded(lab.type(), uniform(random, -size, size));
    return matrix;
  }
  // Returns `rows` rows that repeat those of `pattern`.
  Buffer repeated(const Matrix& pattern, std::int64_t rows) {
    const std::size_t size = size_of(lab.type());
    std::vector<std::byte> bytes(pattern.values.size() * size);
    for (std::size_t i = 0; i < pattern.values.size(); ++i)
      encode(pattern.values[i], lab.type(), bytes.data() + i * size);
    return repeated(std::move(bytes), static_cast<std::size_t>(pattern.columns) * size *
                                          static_cast<std::size_t>(rows));
  }
  // Returns a buffer of `all` bytes that repeats the given ones.
  Buffer repeated(std::vector<std::byte> bytes, std::size_t all) {
    const std::size_t period = bytes.size();
    bytes.resize(all);
    for (std::size_t at = period; at < all; at += period)
      std::copy_n(bytes.begin(), std::min(period, all - at),
                  bytes.begin() + static_cast<std::ptrdiff_t>(at));
    Buffer buffer = lab->allocate(bytes.size());
    lab->upload(lab.queue(), bytes, buffer.data());
    return buffer;
  }
  // Returns the first of `count` rows from `first` on whose bits differ from the expected rows,
  // which repeat with the period, or −1 if none does.
  std::int64_t different(const Tensor& out, std::int64_t first, std::int64_t count,
                         const std::vector<std::byte>& expected) {
    const std::int64_t row = out.columns * static_cast<std::int64_t>(size_of(out.dtype));
    const auto found =
        lab.array<std::byte>(static_cast<char*>(out.data) + first * row, count * row);
    for (std::int64_t i = 0; i < count; ++i) {
      if (std::memcmp(found.data() + i * row, expected.data() + (first + i) % kPeriod * row,
                      static_cast<std::size_t>(row)) != 0)
        return first + i;
    }
    return -1;
  }
  // Compares all rows, or of many rows the first ones, some in the middle, and the last ones.
  std::int64_t different(const Tensor& out, const std::vector<std::byte>& expected) {
    if (out.rows <= 2 * kPeriod) return different(out, 0, out.rows, expected);
    for (const std::int64_t first : {std::int64_t{0}, out.rows / 2, out.rows - kPeriod}) {
      if (const std::int64_t row = different(out, first, kPeriod, expected); row >= 0) return row;
    }
    return -1;
  }
  void check_shape(std::int64_t in, std::int64_t out_width, std::int64_t most);
  void check_norm(const NormedProduct& test, bool wide);
  void check_vocabulary(int beams, std::int64_t vocabulary, std::int64_t most_rows);
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SameRowTest);
INSTANTIATE_TEST_SUITE_P(, SameRowTest, testing::ValuesIn(cuda_backends(false)), backend_name);

void SameRowTest::check_shape(std::int64_t in, std::int64_t out_width, std::int64_t most) {
  const DType type = lab.type();
  const Buffer x = repeated(numbers(kPeriod, in, 2), most);
  const Buffer result = lab->allocate(static_cast<std::size_t>(most * out_width) * size_of(type));
  const Tensor weight =
                   lab.put_weight(numbers(out_width, in, 1.7f / std::sqrt(static_cast<float>(in)))),
               bias = lab.put(numbers(1, out_width, 1), type);
  for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kBias, Epilogue::kBiasRelu}) {
    const Linear layer{weight, epilogue == Epilogue::kNone ? Tensor{} : bias};
    std::vector<std::byte> expected;
    std::string wrong;
    for (const std::int64_t rows : rows_up_to(most)) {
      const auto view = [&](const Buffer& buffer, std::int64_t columns) {
        return Tensor{buffer.data(), type, rows, columns, columns};
      };
      const Tensor out = view(result, out_width);
      lab->clear(lab.queue(), result.data(),
                 static_cast<std::size_t>(rows * out_width) * size_of(type));
      lab->linear(lab.queue(), view(x, in), layer,
                  epilogue == Epilogue::kBiasRelu ? Activation::kRelu : Activation::kNone, out);
      if (expected.empty())
        expected = lab.array<std::byte>(out.data, std::min(kPeriod, rows) * out_width *
                                                      static_cast<std::int64_t>(size_of(type)));
      if (const std::int64_t row = different(out, expected); row >= 0)
        wrong += fmt::format(" {} (row {})", rows, row);
    }
    EXPECT_EQ(wrong, "") << in << " → " << out_width << ", epilogue "
                         << kEpilogues[static_cast<int>(epilogue)] << ": other bits than among "
                         << most << " rows, at M =" << wrong;
  }
  lab.clear();
}

TEST_P(SameRowTest, Products) {
  for (const auto& [in, out_width] : {std::pair{512, 1536}, {512, 512}, {512, 2048}, {2048, 512}})
    check_shape(in, out_width, kMost);
}

// Checks that a product and the norm behind it give the same bits whether one kernel computes both
// or two kernels do. The expected rows come from a run over 257 rows, which is too few for the
// fused kernel. With `wide` the residual stream has low bits.
void SameRowTest::check_norm(const NormedProduct& test, bool wide) {
  const auto& [in, width, bias, before, shift, kind] = test;
  const DType type = lab.type();
  std::vector<std::byte> low_bits_pattern(static_cast<std::size_t>(kPeriod * width));
  for (std::byte& low_bits : low_bits_pattern) low_bits = static_cast<std::byte>(random());
  const Matrix pattern = numbers(kPeriod, width, 2);
  const Buffer x = repeated(numbers(kPeriod, in, 2), kMost),
               between = lab->allocate(static_cast<std::size_t>(kMost * width) * sizeof(float));
  const Linear layer{lab.put_weight(numbers(width, in, 1.7f / std::sqrt(static_cast<float>(in)))),
                     bias ? lab.put(numbers(1, width, 1), type) : Tensor{}};
  const auto parameters = [&] {
    return lab.put(random_matrix(random, 1, width, DType::kFloat32), DType::kFloat32);
  };
  const Norm norm{parameters(), shift ? parameters() : Tensor{}, 1e-5f, kind};
  Buffer stream, low_bits, normed;
  const auto view = [](const Buffer& buffer, DType of, std::int64_t rows, std::int64_t columns) {
    return buffer.data() ? Tensor{buffer.data(), of, rows, columns, columns} : Tensor{};
  };
  // Returns the results of a run by their names.
  const auto run = [&](std::int64_t rows) {
    const std::size_t count = static_cast<std::size_t>(rows * width);
    stream = repeated(pattern, rows);
    low_bits = repeated(low_bits_pattern, wide ? count : 0);
    normed = lab->allocate(before ? count * size_of(type) : 0);
    const ResidualRows rows_of_stream(view(stream, type, rows, width),
                                      view(low_bits, DType::kInt8, rows, width));
    const Tensor rows_of_normed = view(normed, type, rows, width);
    run_linear_norm(*lab, lab.queue(), view(x, type, rows, in), layer,
                    view(between, DType::kFloat32, rows, width), rows_of_stream,
                    before ? Norm{} : norm, before ? norm : Norm{}, rows_of_normed);
    std::vector<std::pair<const char*, Tensor>> results{{"stream", rows_of_stream.rounded}};
    if (wide) results.emplace_back("low bits", rows_of_stream.low_bits);
    if (before) results.emplace_back("normed", rows_of_normed);
    return results;
  };
  std::vector<std::vector<std::byte>> expected;
  for (const auto& [name, rows] : run(kPeriod))
    expected.push_back(lab.array<std::byte>(
        rows.data, kPeriod * width * static_cast<std::int64_t>(size_of(rows.dtype))));
  std::string wrong;
  for (const std::int64_t rows : rows_up_to(kMost)) {
    const auto results = run(rows);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (const std::int64_t row = different(results[i].second, expected[i]); row >= 0)
        wrong += fmt::format(" {} ({} of row {})", rows, results[i].first, row);
    }
  }
  EXPECT_EQ(wrong, "") << in << " → " << width << ", bias " << bias << ", low bits " << wide << ", "
                       << (kind == NormKind::kRms ? "RMS norm " : "layer norm ")
                       << (before ? "before" : "after") << ", shift " << shift
                       << ": other bits than of a product and a norm, at M =" << wrong;
  lab.clear();
}

TEST_P(SameRowTest, ProductsWithNorms) {
  for (const auto& [in, width, bias] : {std::tuple{512, 512, true},
                                        {2048, 512, true},
                                        {512, 512, false},
                                        {1024, 512, true},
                                        {64, 512, true},
                                        {256, 256, true},
                                        {1024, 256, false},
                                        {1536, 256, true}}) {
    check_norm({.in = in, .width = width, .bias = bias}, size_of(lab.type()) == 2);
    if (in == width) check_norm({.in = in, .width = width, .bias = bias}, false);
  }
}

// Tests every norm that the fused kernel computes at every width that it serves. Products over
// `width` columns are fused from so few rows on that from width 512 on all sizes of tiles occur.
// Width 256 would need more rows for the two largest. Products over four times as many columns, as
// in a feed-forward layer, are tested with two of the norms. The fused kernel computes nothing in
// float32.
TEST_P(SameRowTest, ProductsWithNormsOfAllKinds) {
  if (size_of(lab.type()) != 2) GTEST_SKIP() << "no fused kernel in " << name_of(lab.type());
  int turn = 0;
  for (const std::int64_t width : {256, 512, 768, 1024}) {
    for (const auto& [deep, before, shift, kind] :
         {std::tuple{false, false, true, NormKind::kLayer},
          {false, true, true, NormKind::kLayer},
          {false, true, false, NormKind::kLayer},
          {false, true, false, NormKind::kRms},
          {false, true, true, NormKind::kRms},
          {true, false, true, NormKind::kLayer},
          {true, true, false, NormKind::kRms}}) {
      const bool bias = turn++ % 3 != 2;
      check_norm({deep ? 4 * width : width, width, bias, before, shift, kind}, true);
    }
  }
  const std::string path = lab->paths().at("norm");
  EXPECT_TRUE(path == "fused with its product" || path.starts_with("no: compute capability"))
      << path;
}

// Checks the projection onto the vocabulary through a step of search. It compares the tokens and
// the scores after the first step. A score is a log-probability, so the sum over all logits is part
// of it.
void SameRowTest::check_vocabulary(int beams, std::int64_t vocabulary, std::int64_t most_rows) {
  constexpr std::int64_t width = 512;
  const std::int64_t most = most_rows / beams;
  const Buffer hidden = repeated(numbers(kPeriod * beams, width, 2), most * beams);
  const Projection projection{
      {lab.put_weight(numbers(vocabulary, width, 0.3f)),
       lab.put(random_matrix(random, 1, vocabulary, DType::kFloat32), DType::kFloat32)}};
  const SearchRules rules{.beams = beams,
                          .start = 0,
                          .ends = {1},
                          .never_chosen = {static_cast<std::int32_t>(vocabulary - 1)}};
  Search search(*lab, lab.queue(), rules, most, 4);
  std::vector<std::int32_t> slots, tokens;
  std::vector<SlotStart> starts;
  for (std::int32_t slot = 0; slot < most; ++slot) {
    slots.push_back(slot);
    starts.push_back({.slot = slot, .limit = 4});
  }
  const std::int32_t* listed = lab.put(slots);
  std::vector<float> scores;
  std::string wrong;
  for (const std::int64_t rows : rows_up_to(most_rows)) {
    if (rows % beams) continue;
    const std::int64_t groups = rows / beams;
    search.start(std::span(starts).first(static_cast<std::size_t>(groups)));
    search.step({hidden.data(), lab.type(), rows, width, width}, {listed, groups, beams},
                projection);
    const auto found = lab.array<float>(search.state().score, rows);
    const auto chosen = lab.array<std::int32_t>(search.state().token, rows);
    const auto period = static_cast<std::size_t>(kPeriod * beams);
    if (scores.empty()) {
      scores.assign(found.begin(), found.begin() + std::min(std::ssize(found), kPeriod * beams));
      tokens.assign(chosen.begin(), chosen.begin() + std::ssize(scores));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (std::bit_cast<std::uint32_t>(found[i]) ==
              std::bit_cast<std::uint32_t>(scores[i % period]) &&
          chosen[i] == tokens[i % period])
        continue;
      wrong += fmt::format(" {} (row {})", rows, i);
      break;
    }
  }
  EXPECT_EQ(wrong, "") << width << " → " << vocabulary << ", " << beams
                       << " beams: other scores or tokens at M =" << wrong;
  lab.clear();
}

TEST_P(SameRowTest, TheVocabulary) {
  for (const int beams : {1, 4}) check_vocabulary(beams, 32001, kMost);
}

}  // namespace
}  // namespace xlate::test
