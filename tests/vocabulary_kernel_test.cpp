// Tests the fused vocabulary kernel against loops in double precision: on awkward shapes, ties, ids
// that are never chosen and sorted logits. It also tests that the bits of a row do not depend on
// the other rows. Most inputs are small integers, whose logits are exact in float32, so the tokens
// must be the same.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <numeric>

#include "engine/cuda/handles.h"
#include "engine/cuda/products/tensor_map.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "tests/support.h"

namespace xlate::test {
namespace {

using cuda::check;

/// This device memory lies between guard bytes.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes) {
    check(cudaMalloc(&data_, bytes + 2 * kGuard));
    check(cudaMemset(data_, 0xFF, bytes + 2 * kGuard));
  }
  ~Guarded() {
    std::vector<std::uint8_t> bytes(bytes_ + 2 * kGuard);
    EXPECT_EQ(cudaMemcpy(bytes.data(), data_, bytes.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    const auto is_guard = [](std::uint8_t byte) { return byte == 0xFF; };
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.begin() + kGuard, is_guard))
        << "a write before the memory";
    EXPECT_TRUE(std::all_of(bytes.end() - kGuard, bytes.end(), is_guard))
        << "a write behind the memory of " << bytes_ << " bytes";
    cudaFree(data_);
  }
  Guarded(const Guarded&) = delete;
  char* data() const { return static_cast<char*>(data_) + kGuard; }
  template <class T>
  void put(const std::vector<T>& values) {
    check(cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  template <class T>
  std::vector<T> get() const {
    std::vector<T> values(bytes_ / sizeof(T));
    check(cudaMemcpy(values.data(), data(), bytes_, cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  static constexpr std::size_t kGuard = 1024;
  void* data_ = nullptr;
  std::size_t bytes_;
};

struct Case {
  std::int64_t rows, vocabulary, width;
  int count;
  DType type = DType::kFloat16;
  bool with_bias = false, renormalize = false, exact = true;
  std::vector<std::int32_t> never_chosen{};
};

struct Candidates {
  std::vector<float> values;
  std::vector<std::int32_t> tokens;
};

/// These are the inputs of a case. Rows and weights have values that are exact in the type.
struct Inputs {
  Matrix hidden, weight;
  std::vector<float> bias;
};

std::vector<std::uint16_t> bits_of(const Matrix& matrix, DType type, std::int64_t stride) {
  // The columns between two rows are NaN.
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(matrix.rows * stride), 0xFFFF);
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    for (std::int64_t c = 0; c < matrix.columns; ++c) {
      bits[static_cast<std::size_t>(r * stride + c)] =
          type == DType::kFloat16 ? half_bits(matrix(r, c)) : bfloat16_bits(matrix(r, c));
    }
  }
  return bits;
}

Candidates run(const Case& test, const Inputs& in) {
  const std::int64_t stride = test.width + 24;
  const auto rows = static_cast<std::size_t>(in.hidden.rows),
             count = static_cast<std::size_t>(test.count);
  Guarded hidden(rows * static_cast<std::size_t>(stride) * 2), weight(in.weight.values.size() * 2),
      bias(std::max<std::size_t>(in.bias.size(), 1) * 4);
  Guarded never(std::max<std::size_t>(test.never_chosen.size(), 1) * 4), values(rows * count * 4),
      tokens(rows * count * 4);
  Guarded scratch(cuda::vocabulary_scratch_bytes(in.hidden.rows, test.vocabulary, test.count));
  hidden.put(bits_of(in.hidden, test.type, stride));
  weight.put(bits_of(in.weight, test.type, test.width));
  bias.put(in.bias);
  never.put(test.never_chosen);
  cuda::RulesView rules{};
  rules.renormalize = test.renormalize;
  rules.never_chosen = reinterpret_cast<std::int32_t*>(never.data());
  rules.never_chosen_count = static_cast<int>(test.never_chosen.size());
  const cuda::VocabularyArgs args{
      .hidden = cuda::tensor_map({hidden.data(), test.type, in.hidden.rows, test.width, stride}),
      .weight =
          cuda::tensor_map({weight.data(), test.type, test.vocabulary, test.width, test.width}),
      .bias = in.bias.empty() ? nullptr : reinterpret_cast<const float*>(bias.data()),
      .rows = in.hidden.rows,
      .width = test.width,
      .vocabulary = test.vocabulary,
      .scratch = scratch.data()};
  const cuda::RowCandidates out{reinterpret_cast<float*>(values.data()),
                                reinterpret_cast<std::int32_t*>(tokens.data()), test.count};
  EXPECT_TRUE(cuda::vocabulary_kernel_fits(90, test.width, test.vocabulary, test.count));
  if (test.type == DType::kFloat16)
    cuda::project_rows<__half>(args, rules, out, nullptr);
  else
    cuda::project_rows<__nv_bfloat16>(args, rules, out, nullptr);
  check(cudaGetLastError());
  check(cudaDeviceSynchronize());
  return {values.get<float>(), tokens.get<std::int32_t>()};
}

/// Returns small random integers, whose sums of products stay far below 2^24.
Matrix integers(Random& random, std::int64_t rows, std::int64_t columns, int most) {
  Matrix matrix(rows, columns);
  for (double& value : matrix.values) value = whole(random, -most, most);
  return matrix;
}

Inputs random_inputs(const Case& test, Random& random) {
  Inputs in;
  if (test.exact) {
    in = {integers(random, test.rows, test.width, 1),
          integers(random, test.vocabulary, test.width, 1),
          {}};
  } else {
    in = {random_matrix(random, test.rows, test.width, test.type),
          random_matrix(random, test.vocabulary, test.width, test.type),
          {}};
  }
  if (test.with_bias) {
    in.bias.resize(static_cast<std::size_t>(test.vocabulary));
    for (float& value : in.bias)
      value = random() % 16 == 0 ? -INFINITY
              : test.exact       ? static_cast<float>(whole(random, -8, 8))
                                 : uniform(random, -2, 2);
  }
  return in;
}

/// Compares a row with double-precision loops. With inexact inputs, a near-tie may be decided
/// either way.
void expect_row(const Case& test, const Inputs& in, const Candidates& got, std::int64_t row) {
  const auto vocabulary = static_cast<std::size_t>(test.vocabulary);
  std::vector<double> logits(vocabulary);
  std::vector<char> never(vocabulary, 0);
  for (const std::int32_t id : test.never_chosen) never[static_cast<std::size_t>(id)] = 1;
  double top = -INFINITY, sum = 0;
  for (std::size_t id = 0; id < vocabulary; ++id) {
    double logit = 0;
    const double* x = &in.hidden.values[static_cast<std::size_t>(row * test.width)];
    const double* w = &in.weight.values[id * static_cast<std::size_t>(test.width)];
    for (std::int64_t k = 0; k < test.width; ++k) logit += x[k] * w[k];
    logits[id] = in.bias.empty() ? logit : logit + in.bias[id];
    if (!(test.renormalize && never[id])) top = std::max(top, logits[id]);
  }
  for (std::size_t id = 0; id < vocabulary; ++id) {
    if (!(test.renormalize && never[id]) && top > -INFINITY) sum += std::exp(logits[id] - top);
  }
  const double log_sum = top + std::log(sum),
               tolerance = (test.exact ? 2e-5 : 2e-4) * std::max(1.0, std::fabs(log_sum) / 8);
  std::vector<std::int32_t> order;
  for (std::size_t id = 0; id < vocabulary; ++id) {
    if (!never[id] && logits[id] > -INFINITY) order.push_back(static_cast<std::int32_t>(id));
  }
  const auto count = static_cast<std::size_t>(test.count),
             first = static_cast<std::size_t>(row) * count, sorted = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(sorted), order.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const double x = logits[static_cast<std::size_t>(a)],
                                   y = logits[static_cast<std::size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  for (std::size_t i = 0; i < count; ++i) {
    const float value = got.values[first + i];
    const std::int32_t token = got.tokens[first + i];
    if (i >= sorted) {
      ASSERT_TRUE(value == -INFINITY && token == 0)
          << "row " << row << ", place " << i << ": " << value << " of token " << token
          << ", expected none";
      continue;
    }
    ASSERT_NEAR(value, logits[static_cast<std::size_t>(order[i])] - log_sum, tolerance)
        << "row " << row << ", place " << i << ", token " << token << ", expected " << order[i];
    if (test.exact) {
      ASSERT_EQ(token, order[i]) << "row " << row << ", place " << i;
      continue;
    }
    ASSERT_TRUE(token >= 0 && token < test.vocabulary && !never[static_cast<std::size_t>(token)])
        << "row " << row << ", place " << i << ": token " << token;
    ASSERT_NEAR(value, logits[static_cast<std::size_t>(token)] - log_sum, tolerance)
        << "row " << row << ", place " << i << ", token " << token;
    ASSERT_EQ(std::count(&got.tokens[first], &got.tokens[first] + sorted, token), 1)
        << "row " << row << ", token " << token;
  }
}

std::string name_of_case(const Case& test) {
  return fmt::format("R {}, V {}, D {}, count {}, {}{}{}{}, {} never chosen", test.rows,
                     test.vocabulary, test.width, test.count, name_of(test.type),
                     test.with_bias ? ", bias" : "", test.renormalize ? ", renormalized" : "",
                     test.exact ? "" : ", inexact", test.never_chosen.size());
}

/// Compares a few rows of a case, among them the first and the last row of warpgroups and of
/// blocks.
void expect_case(const Case& test, const Inputs& in, const Candidates& got, std::int64_t most = 6) {
  SCOPED_TRACE(name_of_case(test));
  std::vector<std::int64_t> rows{test.rows - 1, 0, 63, 64, 127, 128, test.rows / 2, 8, 255, 256};
  std::erase_if(rows, [&](std::int64_t row) { return row >= test.rows; });
  std::vector<std::int64_t> seen;
  for (const std::int64_t row : rows) {
    if (std::ssize(seen) == most || std::find(seen.begin(), seen.end(), row) != seen.end())
      continue;
    seen.push_back(row);
    expect_row(test, in, got, row);
  }
}

class cuda_VocabularyKernel : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0, major = 0, minor = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    if (10 * major + minor != 90)
      GTEST_SKIP() << "a GPU of compute capability " << major << "." << minor << ", expected 9.0";
  }
  Random random{7};
};

TEST_F(cuda_VocabularyKernel, Shapes) {
  const std::int64_t rows[] = {1, 2, 5, 64, 127, 128, 129, 300, 1000},
                     widths[] = {64, 256, 512, 1024}, vocabularies[] = {7, 130, 1474, 8001};
  const int counts[] = {1, 2, 8, 16};
  int turn = 0;
  for (const std::int64_t vocabulary : vocabularies) {
    for (const std::int64_t width : widths) {
      for (int i = 0; i < 4; ++i, ++turn) {
        const std::int64_t r = rows[(turn * 5 + i) % 9];
        const Case test{r,
                        vocabulary,
                        width,
                        counts[i],
                        turn % 2 ? DType::kFloat16 : DType::kBFloat16,
                        turn % 3 == 0};
        const Inputs in = random_inputs(test, random);
        expect_case(test, in, run(test, in), vocabulary > 2000 ? 3 : 6);
        if (HasFailure()) return;
      }
    }
  }
  for (const std::int64_t r : rows) {
    const Case test{r, 1474, 128, r % 2 ? 8 : 1};
    const Inputs in = random_inputs(test, random);
    expect_case(test, in, run(test, in), 10);
  }
}

TEST_F(cuda_VocabularyKernel, LargeVocabulary) {
  for (const DType type : {DType::kFloat16, DType::kBFloat16}) {
    for (const int count : {1, 8, 16}) {
      const Case test{count == 8 ? 700 : 300, 32001, 512, count, type, count != 1};
      const Inputs in = random_inputs(test, random);
      expect_case(test, in, run(test, in), 4);
    }
  }
}

// There are so many rows that some clusters begin in the middle of the vocabulary and first look at
// its first tiles (seeds). There are few distinct logits, so that candidates tie across tiles.
TEST_F(cuda_VocabularyKernel, RunsWithSeeds) {
  int turn = 0;
  for (const int count : {8, 16}) {
    for (const std::int64_t width : {64, 1024}) {
      for (const bool renormalize : {false, true}) {
        for (const float more : {0.0f, 40.0f}) {
          Case test{2100,
                    32001,
                    width,
                    count,
                    ++turn % 2 ? DType::kFloat16 : DType::kBFloat16,
                    true,
                    renormalize,
                    true,
                    {0, 1, 2, 130, 300, 512, 31999}};
          Inputs in = random_inputs(test, random);
          for (std::size_t id = 0; id < 600; ++id)
            // With 40 added, the tokens of the seeds are better than all others of a run.
            in.bias[id] += more;
          expect_case(test, in, run(test, in), width > 64 ? 3 : 10);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_F(cuda_VocabularyKernel, Inexact) {
  for (const DType type : {DType::kFloat16, DType::kBFloat16}) {
    for (const std::int64_t width : {192, 512, 960}) {
      const Case test{130, 8001, width, 8, type, true, false, false, {0, 5, 8000}};
      const Inputs in = random_inputs(test, random);
      expect_case(test, in, run(test, in), 3);
    }
  }
}

TEST_F(cuda_VocabularyKernel, NeverChosen) {
  std::vector<std::int32_t> many(1400);
  std::iota(many.begin(), many.end(), 37);
  for (const bool renormalize : {false, true}) {
    for (const int count : {1, 8, 16}) {
      for (const auto& never : {std::vector<std::int32_t>{1473},
                                std::vector<std::int32_t>{0, 127, 128, 129, 255, 1024}, many}) {
        const Case test{70, 1474, 256, count, DType::kFloat16, false, renormalize, true, never};
        const Inputs in = random_inputs(test, random);
        expect_case(test, in, run(test, in));
      }
      // One id may be chosen here, and none in the case derived from it.
      const Case test{
          3, 7, 64, count, DType::kBFloat16, true, renormalize, true, {0, 1, 2, 4, 5, 6}};
      Inputs in = random_inputs(test, random);
      in.bias[3] = 0;
      expect_case(test, in, run(test, in));
      Case none = test;
      none.never_chosen.push_back(3);
      expect_case(none, in, run(none, in));
    }
  }
}

// All logits are equal, or they are sorted by id upwards or downwards. The logit is ±id / 1024. The
// 16-bit types do not hold every id, so two columns have its quotient and its remainder by 256.
TEST_F(cuda_VocabularyKernel, EqualAndSorted) {
  for (const int count : {1, 8, 16}) {
    for (const int slope : {0, 1, -1}) {
      const Case test{300, 20001, 64, count, count == 1 ? DType::kBFloat16 : DType::kFloat16};
      Inputs in{Matrix(test.rows, test.width), Matrix(test.vocabulary, test.width), {}};
      for (std::int64_t r = 0; r < test.rows; ++r)
        in.hidden(r, 0) = slope * 0.25, in.hidden(r, 63) = slope * 0x1p-10;
      for (std::int64_t id = 0; id < test.vocabulary; ++id)
        in.weight(id, 0) = static_cast<double>(id / 256),
                      in.weight(id, 63) = static_cast<double>(id % 256);
      expect_case(test, in, run(test, in), 3);
    }
  }
}

TEST_F(cuda_VocabularyKernel, NoLogitIsFinite) {
  for (const int count : {1, 8, 16}) {
    const Case test{130, 1474, 64, count, DType::kFloat16, true};
    Inputs in = random_inputs(test, random);
    std::fill(in.bias.begin(), in.bias.end(), -INFINITY);
    expect_case(test, in, run(test, in));
    // The kernel ends and stays inside its memory.
    for (const float bad : {INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
      for (std::size_t i = 0; i < in.bias.size(); ++i) in.bias[i] = i % 3 == 0 ? bad : 1.0f;
      run(test, in);
      std::fill(in.bias.begin(), in.bias.end(), bad);
      run(test, in);
    }
  }
}

// The results of a row have the same bits when it is alone, when it is among others, and wherever
// it lies.
TEST_F(cuda_VocabularyKernel, OtherRowsDoNotMatter) {
  for (const std::int64_t width : {256, 512, 1024}) {
    for (const int count : {1, 8}) {
      Case test{1000,
                width == 512 ? 8001 : 3001,
                width,
                count,
                width == 256 ? DType::kBFloat16 : DType::kFloat16,
                true,
                false,
                false,
                {2}};
      const Inputs all = random_inputs(test, random);
      const Candidates whole_run = run(test, all);
      for (const std::int64_t rows : {1, 2, 5, 64, 127, 128, 129, 300, 999}) {
        Inputs part{Matrix(rows, width), all.weight, all.bias};
        std::vector<std::int64_t> from;
        for (std::int64_t r = 0; r < rows; ++r) {
          from.push_back((r * 7 + 331 + rows) % 1000);
          std::copy_n(&all.hidden.values[static_cast<std::size_t>(from.back() * width)], width,
                      &part.hidden.values[static_cast<std::size_t>(r * width)]);
        }
        test.rows = rows;
        const Candidates got = run(test, part);
        for (std::int64_t r = 0; r < rows; ++r) {
          const auto a = static_cast<std::size_t>(r * count),
                     b = static_cast<std::size_t>(from[static_cast<std::size_t>(r)] * count),
                     bytes = static_cast<std::size_t>(count) * 4;
          ASSERT_EQ(std::memcmp(&got.values[a], &whole_run.values[b], bytes), 0)
              << name_of_case(test) << ": row " << r;
          ASSERT_EQ(std::memcmp(&got.tokens[a], &whole_run.tokens[b], bytes), 0)
              << name_of_case(test) << ": row " << r;
        }
      }
    }
  }
}

// The kernel can be recorded in a CUDA graph and replayed.
TEST_F(cuda_VocabularyKernel, InAGraph) {
  EXPECT_FALSE(cuda::vocabulary_kernel_fits(80, 512, 32001, 8));
  EXPECT_FALSE(cuda::vocabulary_kernel_fits(90, 500, 32001, 8));
  EXPECT_FALSE(cuda::vocabulary_kernel_fits(90, 512, 32001, 17));
  const Case test{300, 1474, 512, 8};
  const Inputs in = random_inputs(test, random);
  const Candidates expected = run(test, in);
  Guarded hidden(in.hidden.values.size() * 2), weight(in.weight.values.size() * 2),
      values(300 * 8 * 4), tokens(300 * 8 * 4);
  Guarded scratch(cuda::vocabulary_scratch_bytes(5000, test.vocabulary, test.count));
  hidden.put(bits_of(in.hidden, test.type, test.width));
  weight.put(bits_of(in.weight, test.type, test.width));
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cuda::project_rows<__half>(
      {cuda::tensor_map({hidden.data(), test.type, test.rows, test.width, test.width}),
       cuda::tensor_map({weight.data(), test.type, test.vocabulary, test.width, test.width}),
       nullptr, test.rows, test.width, test.vocabulary, scratch.data()},
      {},
      {reinterpret_cast<float*>(values.data()), reinterpret_cast<std::int32_t*>(tokens.data()),
       test.count},
      stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&ready, graph));
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(ready, stream));
  check(cudaStreamSynchronize(stream));
  EXPECT_EQ(tokens.get<std::int32_t>(), expected.tokens);
  EXPECT_EQ(values.get<float>(), expected.values);
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace xlate::test
