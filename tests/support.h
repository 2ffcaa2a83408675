// What the tests of several modules share: the backends to test, random numbers, and memory of a
// backend with guard bytes. The backend is reached through allocate, upload and read_later alone,
// so that the same cases run on a GPU. Tests on one are named cuda_…, and skip themselves where it
// cannot be opened.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/error.h"

namespace xlate::test {

/// The folder of the sources, and that of the models made from tests/data: where they were built,
/// or where the environment says.
inline std::string source_folder() {
  const char* folder = std::getenv("XLATE_SOURCE_DIR");
  return folder ? folder : XLATE_SOURCE_DIR;
}
inline std::string models_folder() {
  const char* folder = std::getenv("XLATE_TEST_MODELS");
  return folder ? folder : XLATE_TEST_MODELS;
}

/// A backend to test: its name in the tests' names, how to make one, and the type that it computes
/// in.
struct BackendUnderTest {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  DType type = DType::kFloat32;
  bool cuda = false;

  /// Why it cannot be opened here; empty where it can.
  std::string missing() const {
    if (!cuda) return {};
    static std::map<std::string, std::string> known;
    const auto [entry, is_new] = known.try_emplace(name);
    if (is_new) {
      try {
        make();
      } catch (const Error& error) {
        entry->second = error.what();
      }
    }
    return entry->second;
  }
};

inline void PrintTo(const BackendUnderTest& backend, std::ostream* out) { *out << backend.name; }

/// Of a build with CUDA, one for each type that it computes in: for many sentences, or for one at a
/// time (…_solo), which is another way in 16-bit types only. Opens none.
inline std::vector<BackendUnderTest> cuda_backends(bool one_at_a_time) {
  if (!has_cuda()) return {};
  const auto cuda = [=](const char* name, Precision precision, DType type) {
    return BackendUnderTest{
        fmt::format("cuda_{}{}", name, one_at_a_time ? "_solo" : ""),
        [=] {
          return make_backend(
              {.cuda = true, .precision = precision, .one_at_a_time = one_at_a_time});
        },
        type, true};
  };
  std::vector<BackendUnderTest> list{cuda("fp16", Precision::kFloat16, DType::kFloat16),
                                     cuda("bf16", Precision::kBFloat16, DType::kBFloat16)};
  if (!one_at_a_time) list.insert(list.begin(), cuda("fp32", Precision::kFloat32, DType::kFloat32));
  return list;
}
inline std::vector<BackendUnderTest> cuda_backends() {
  std::vector<BackendUnderTest> list = cuda_backends(false), solo = cuda_backends(true);
  list.insert(list.end(), solo.begin(), solo.end());
  return list;
}

/// Every backend of this build, in each way that makes a difference to its results. Opens none.
inline std::vector<BackendUnderTest> backends() {
  std::vector<BackendUnderTest> list = cuda_backends();
  for (const int threads : {1, 2, 3}) {
    list.push_back(
        {fmt::format("cpu{}", threads), [threads] { return make_backend({.threads = threads}); }});
  }
  return list;
}

inline std::string backend_name(const testing::TestParamInfo<BackendUnderTest>& info) {
  return info.param.name;
}

/// What the suites that run on each backend derive from. Members may hold a Lab: it opens nothing
/// until it is used.
class OnBackend : public testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    if (const std::string why = GetParam().missing(); !why.empty()) GTEST_SKIP() << why;
  }
};

using Random = std::mt19937;

/// Uniform in [low, high), from 24 bits: the same on every system, which
/// std::uniform_real_distribution is not.
inline float uniform(Random& random, float low, float high) {
  return low + (high - low) * static_cast<float>(random() >> 8) * 0x1p-24f;
}
/// Uniform in [low, high].
inline int whole(Random& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
}

/// Whether case number `turn` is left out where XLATE_TEST_FEW asks for few, one of `each`: a
/// sanitizer makes every launch slow.
inline bool left_out(int turn, int each) {
  static const bool few = std::getenv("XLATE_TEST_FEW") != nullptr;
  return few && turn % each != 0;
}

/// Half the distance between 1 and the next number of the type: the relative error of one rounding.
inline double unit_roundoff(DType type) {
  return type == DType::kFloat32 ? 0x1p-24 : type == DType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

/// x as the type holds it. Slow and simple: round to the nearest of its significand's bits, ties to
/// even.
inline double rounded(DType type, double x) {
  if (type == DType::kFloat32) return static_cast<float>(x);
  if (x == 0 || !std::isfinite(x)) return x;
  const int bits = type == DType::kFloat16 ? 11 : 8, least = type == DType::kFloat16 ? -24 : -133;
  const int exponent = std::max(std::ilogb(x) - (bits - 1), least);
  return std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
}

/// The most that rounding x to the type moves it; no result here is subnormal but float16's.
inline double rounding(DType type, double x) {
  return std::max(unit_roundoff(type) * std::fabs(x), type == DType::kFloat16 ? 0x1p-25 : 0.0);
}

/// IEEE half and bfloat16, by their definition.
inline double half_value(std::uint16_t bits) {
  const int sign = bits >> 15, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude = exponent == 31  ? (fraction ? std::numeric_limits<double>::quiet_NaN()
                                                       : std::numeric_limits<double>::infinity())
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return sign ? -magnitude : magnitude;
}
inline double bfloat16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// The bits of a number that the type holds exactly.
inline std::uint16_t half_bits(double x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return sign;
  if (std::isnan(magnitude)) return 0x7e00;
  if (std::isinf(magnitude)) return sign | 0x7c00;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const int scaled = static_cast<int>(std::ldexp(magnitude, 10 - exponent));
  return static_cast<std::uint16_t>(sign | ((exponent + 14) * 1024 + scaled));
}
inline std::uint16_t bfloat16_bits(double x) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) >> 16);
}

/// A number that the type holds exactly, as its bytes, and back.
inline void encode(double value, DType type, std::byte* out) {
  const float single = static_cast<float>(value);
  const std::uint16_t bits = type == DType::kFloat16 ? half_bits(value) : bfloat16_bits(value);
  std::memcpy(out, type == DType::kFloat32 ? static_cast<const void*>(&single) : &bits,
              size_of(type));
}
inline double decode(const std::byte* in, DType type) {
  float single = 0;
  std::uint16_t bits = 0;
  if (type == DType::kFloat32) return std::memcpy(&single, in, 4), single;
  std::memcpy(&bits, in, 2);
  return type == DType::kFloat16 ? half_value(bits) : bfloat16_value(bits);
}

/// A matrix of the host, in double: what the naive references compute with.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(std::int64_t rows, std::int64_t columns)
      : rows(rows), columns(columns), values(static_cast<std::size_t>(rows * columns)) {}
  double& operator()(std::int64_t r, std::int64_t c) {
    return values[static_cast<std::size_t>(r * columns + c)];
  }
  double operator()(std::int64_t r, std::int64_t c) const {
    return values[static_cast<std::size_t>(r * columns + c)];
  }
};

/// Values in [−1, 1) that the type holds exactly.
inline Matrix random_matrix(Random& random, std::int64_t rows, std::int64_t columns, DType type) {
  Matrix matrix(rows, columns);
  for (double& value : matrix.values) value = rounded(type, uniform(random, -1, 1));
  return matrix;
}

/// A backend and its memory, every tensor in guard bytes: 0xFF, which in every float type is a NaN.
/// What is read from outside a tensor spoils the result, what is written there is found by
/// expect_guards(), and what is not written at all stays NaN.
class Lab {
 public:
  static constexpr std::size_t kGuard = 256;

  explicit Lab(const BackendUnderTest& test) : test_(test) {}
  ~Lab() { expect_guards(); }
  Lab(const Lab&) = delete;

  Backend& operator*() { return open(), *backend_; }
  Backend* operator->() { return open(), backend_.get(); }
  Queue& queue() { return open(), *queue_; }
  DType type() const { return test_.type; }

  /// An output: rows lie `gap` elements apart.
  Tensor uninitialized(std::int64_t rows, std::int64_t columns, DType type, std::int64_t gap = 0) {
    const std::int64_t stride = columns + gap;
    char* data = guarded(static_cast<std::size_t>(rows * stride) * size_of(type),
                         static_cast<std::size_t>(columns) * size_of(type),
                         static_cast<std::size_t>(stride) * size_of(type));
    return {data, type, rows, columns, stride};
  }
  Tensor put(const Matrix& matrix, DType type, std::int64_t gap = 0) {
    const Tensor tensor = uninitialized(matrix.rows, matrix.columns, type, gap);
    write(matrix, tensor, queue());
    wait(tensor.data);
    return tensor;
  }
  /// A weight as models allocate them: zero rows follow up to a multiple of the backend's
  /// row_multiple().
  Tensor put_weight(const Matrix& matrix) {
    const std::int64_t multiple = (**this).row_multiple();
    Matrix padded = matrix;
    padded.rows = (matrix.rows + multiple - 1) / multiple * multiple;
    padded.values.resize(static_cast<std::size_t>(padded.rows * padded.columns));
    return put(padded, type()).row_range(0, matrix.rows);
  }
  void write(const Matrix& matrix, const Tensor& tensor, Queue& queue) {
    const std::int64_t size = static_cast<std::int64_t>(size_of(tensor.dtype));
    std::vector<std::byte> bytes(static_cast<std::size_t>(matrix.rows * matrix.columns * size));
    for (std::size_t i = 0; i < matrix.values.size(); ++i)
      encode(matrix.values[i], tensor.dtype, bytes.data() + i * size_of(tensor.dtype));
    const bool in_one_piece = tensor.stride == tensor.columns;
    const std::int64_t pieces = in_one_piece ? 1 : matrix.rows,
                       piece = in_one_piece ? std::ssize(bytes) : matrix.columns * size;
    for (std::int64_t i = 0; i < pieces; ++i) {
      (**this).upload(queue,
                      std::span(bytes).subspan(static_cast<std::size_t>(i * piece),
                                               static_cast<std::size_t>(piece)),
                      static_cast<char*>(tensor.data) + i * tensor.stride * size);
    }
  }
  Matrix get(const Tensor& tensor) {
    Matrix matrix(tensor.rows, tensor.columns);
    const std::int64_t size = static_cast<std::int64_t>(size_of(tensor.dtype));
    const auto bytes =
        array<std::byte>(tensor.data, ((tensor.rows - 1) * tensor.stride + tensor.columns) * size);
    for (std::int64_t row = 0; row < tensor.rows; ++row) {
      for (std::int64_t column = 0; column < tensor.columns; ++column)
        matrix(row, column) =
            decode(bytes.data() + (row * tensor.stride + column) * size, tensor.dtype);
    }
    return matrix;
  }

  template <class T>
  T* put(const std::vector<T>& values) {
    const std::size_t bytes = values.size() * sizeof(T);
    char* data = guarded(bytes, bytes, bytes);
    (**this).upload(queue(), std::as_bytes(std::span(values)), data);
    wait(data);
    return reinterpret_cast<T*>(data);
  }
  template <class T>
  std::vector<T> array(const void* device, std::int64_t count) {
    return array<T>(device, count, queue());
  }
  template <class T>
  std::vector<T> array(const void* device, std::int64_t count, Queue& queue) {
    std::vector<T> values(static_cast<std::size_t>(count));
    const auto ticket = (**this).read_later(
        queue, {static_cast<const std::byte*>(device), values.size() * sizeof(T)});
    if (count > 0) std::memcpy(values.data(), ticket->wait().data(), values.size() * sizeof(T));
    return values;
  }

  /// That no byte outside of the tensors has changed.
  void expect_guards() {
    for (const Block& block : blocks_) {
      const auto bytes =
          array<std::uint8_t>(block.buffer.data(), static_cast<std::int64_t>(block.buffer.bytes()));
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        const bool inside =
            i >= kGuard && i - kGuard < block.used && (i - kGuard) % block.stride < block.row;
        if (!inside && bytes[i] != 0xFF) {
          ADD_FAILURE() << "a write outside of a tensor of rows of " << block.row << " bytes, "
                        << block.stride << " apart, " << block.used << " in all: at byte "
                        << static_cast<std::int64_t>(i) - static_cast<std::int64_t>(kGuard);
          break;
        }
      }
    }
  }
  /// Frees all tensors, once their guards are seen to be whole.
  void clear() {
    expect_guards();
    blocks_.clear();
  }

 private:
  struct Block {
    Buffer buffer;
    std::size_t used, row, stride;  // bytes between the guards, of a row, from row to row
  };

  void open() {
    if (backend_) return;
    backend_ = test_.make();
    queue_ = backend_->make_queue();
    EXPECT_EQ(backend_->compute_type(), test_.type);
  }
  // What was uploaded is there: another queue may use it.
  void wait(const void* device) { array<std::byte>(device, 1); }
  char* guarded(std::size_t bytes, std::size_t row, std::size_t stride) {
    blocks_.push_back(
        {(**this).allocate(bytes + 2 * kGuard), bytes, row, std::max<std::size_t>(stride, 1)});
    const std::vector<std::byte> fill(bytes + 2 * kGuard, std::byte{0xFF});
    backend_->upload(*queue_, fill, blocks_.back().buffer.data());
    wait(blocks_.back().buffer.data());
    return blocks_.back().buffer.as<char>() + kGuard;
  }

  BackendUnderTest test_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Queue> queue_;
  std::vector<Block> blocks_;
};

/// That `call` throws Error and its message holds each of the texts.
template <class Call>
void expect_error(Call&& call, std::initializer_list<std::string_view> texts) {
  try {
    call();
    ADD_FAILURE() << "no error, expected one that says '" << (texts.size() ? *texts.begin() : "")
                  << "'";
  } catch (const Error& error) {
    for (const std::string_view text : texts) {
      EXPECT_NE(std::string_view(error.what()).find(text), std::string_view::npos)
          << "'" << text << "' is not in: " << error.what();
    }
  }
}

}  // namespace xlate::test
