// This header has what several tests share: the backends to test, fixtures that run a suite on each
// of them, random numbers, conversions of 16-bit types, and a backend's memory with guard bytes.
// The helpers move data with Backend's allocate, upload and read_later alone, so that the same test
// runs on the CPU and on a GPU. The names of tests on a GPU contain "cuda_". Such a test skips
// itself where the GPU cannot be opened.
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

/// Returns the repository's folder: the value of XLATE_SOURCE_DIR in the environment, or the folder
/// that the tests were built from.
inline std::string source_folder() {
  const char* folder = std::getenv("XLATE_SOURCE_DIR");
  return folder ? folder : XLATE_SOURCE_DIR;
}
/// Returns the folder with the models that the build converts from tests/data: the value of
/// XLATE_TEST_MODELS in the environment, or the folder in the build.
inline std::string models_folder() {
  const char* folder = std::getenv("XLATE_TEST_MODELS");
  return folder ? folder : XLATE_TEST_MODELS;
}

/// Describes a backend to test. `name` becomes a part of the tests' names, and `make` opens the
/// backend, which computes in `type`.
struct BackendUnderTest {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  DType type = DType::kFloat32;
  bool cuda = false;

  /// Returns why the backend cannot be opened on this machine, or an empty string if it can. A GPU
  /// is tried once for each name.
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

/// Returns the CUDA backends of this build, one for each compute type, without opening them. The
/// list is empty in a build without CUDA. With `one_at_a_time` they decode one sentence at a time
/// and their names end in "_solo". That uses other kernels in the 16-bit types only, so float32 is
/// not in that list.
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
/// Returns the CUDA backends of both kinds.
inline std::vector<BackendUnderTest> cuda_backends() {
  std::vector<BackendUnderTest> list = cuda_backends(false), solo = cuda_backends(true);
  list.insert(list.end(), solo.begin(), solo.end());
  return list;
}

/// Returns every backend of this build, in each way that may change its results, without opening
/// one: the CUDA backends, and the CPU backend with one, two and three threads.
inline std::vector<BackendUnderTest> backends() {
  std::vector<BackendUnderTest> list = cuda_backends();
  for (const int threads : {1, 2, 3}) {
    list.push_back(
        {fmt::format("cpu{}", threads), [threads] { return make_backend({.threads = threads}); }});
  }
  return list;
}

/// Returns backends() and a CPU backend whose caches are not in the type of its rows.
inline std::vector<BackendUnderTest> cache_backends() {
  std::vector<BackendUnderTest> list = backends();
  list.push_back(
      {"cpu_int8", [] { return make_backend({.precision = Precision::kInt8, .threads = 2}); }});
  return list;
}

/// Holds an open backend with a queue, which is destroyed first.
struct OpenBackend {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Queue> queue;
};

/// Returns the backends that tests of this process share, by the name of their BackendUnderTest. An
/// entry is opened by the first Lab that uses it.
inline std::map<std::string, OpenBackend>& shared_backends() {
  static std::map<std::string, OpenBackend> open;
  return open;
}

/// Closes the shared backends after the last test. A destructor of a static variable could run
/// after the CUDA driver has shut down.
class CloseSharedBackends : public testing::Environment {
 public:
  void TearDown() override { shared_backends().clear(); }
};
inline testing::Environment* const kCloseSharedBackends =
    testing::AddGlobalTestEnvironment(new CloseSharedBackends);

inline std::string backend_name(const testing::TestParamInfo<BackendUnderTest>& info) {
  return info.param.name;
}

/// Returns attention with heads that share the width out, scores divided by √head, and no bias.
inline Attention usual_attention(std::int64_t width, int heads) {
  const std::int64_t head = width / heads;
  return {heads, head, static_cast<float>(1 / std::sqrt(static_cast<double>(head))), {}};
}

using Random = std::mt19937;

/// Returns a number that is uniformly distributed in [low, high), made of 24 random bits. It is the
/// same on every system, whereas std::uniform_real_distribution depends on the standard library.
inline float uniform(Random& random, float low, float high) {
  return low + (high - low) * static_cast<float>(random() >> 8) * 0x1p-24f;
}
/// Returns an integer that is almost uniformly distributed in [low, high].
inline int whole(Random& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
}

/// Returns whether XLATE_TEST_FEW asks for few cases, as gpu_acceptance.py does under
/// compute-sanitizer, which makes every kernel launch slow.
inline bool few_cases() { return std::getenv("XLATE_TEST_FEW") != nullptr; }

/// Returns half the distance between 1 and the next larger number of the type, which is the largest
/// relative error of one rounding to a normal number.
inline double unit_roundoff(DType type) {
  return type == DType::kFloat32 ? 0x1p-24 : type == DType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

/// Returns x rounded to the type: to the nearest value, with ties to even. Values that overflow a
/// 16-bit type are not turned into infinities.
inline double rounded(DType type, double x) {
  if (type == DType::kFloat32) return static_cast<float>(x);
  if (x == 0 || !std::isfinite(x)) return x;
  const int bits = type == DType::kFloat16 ? 11 : 8, least = type == DType::kFloat16 ? -24 : -133;
  const int exponent = std::max(std::ilogb(x) - (bits - 1), least);
  return std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
}

/// Returns the largest error of rounding x to the type. Results in the tests are subnormal in
/// float16 at most, so only that type has an absolute bound.
inline double rounding(DType type, double x) {
  return std::max(unit_roundoff(type) * std::fabs(x), type == DType::kFloat16 ? 0x1p-25 : 0.0);
}

/// Returns the value of IEEE 754 half-precision bits, by the definition of the format.
inline double half_value(std::uint16_t bits) {
  const int sign = bits >> 15, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude = exponent == 31  ? (fraction ? std::numeric_limits<double>::quiet_NaN()
                                                       : std::numeric_limits<double>::infinity())
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return sign ? -magnitude : magnitude;
}
/// Returns the value of bfloat16 bits, which are the upper half of a float32.
inline double bfloat16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Returns the bits of a number that half precision holds exactly.
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
/// Returns the bits of a number that bfloat16 holds exactly.
inline std::uint16_t bfloat16_bits(double x) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) >> 16);
}

/// Writes the bytes of a number that the floating-point type holds exactly.
inline void encode(double value, DType type, std::byte* out) {
  const float single = static_cast<float>(value);
  const std::uint16_t bits = type == DType::kFloat16 ? half_bits(value) : bfloat16_bits(value);
  std::memcpy(out, type == DType::kFloat32 ? static_cast<const void*>(&single) : &bits,
              size_of(type));
}
/// Returns the number whose bytes encode() wrote.
inline double decode(const std::byte* in, DType type) {
  float single = 0;
  std::uint16_t bits = 0;
  if (type == DType::kFloat32) return std::memcpy(&single, in, 4), single;
  std::memcpy(&bits, in, 2);
  return type == DType::kFloat16 ? half_value(bits) : bfloat16_value(bits);
}

/// Holds a matrix in the host's memory, in double precision. The reference loops compute with it.
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

/// Returns random values in [−1, 1], rounded to the type.
inline Matrix random_matrix(Random& random, std::int64_t rows, std::int64_t columns, DType type) {
  Matrix matrix(rows, columns);
  for (double& value : matrix.values) value = rounded(type, uniform(random, -1, 1));
  return matrix;
}

/// Says whether a Lab opens a backend of its own or uses that of shared_backends(). Backends of the
/// same name share, so a BackendUnderTest with another `make` under a usual name must not.
enum class Sharing : std::uint8_t { kOwn, kShared };

/// Holds a backend and the tensors of one test. The backend is opened when it is first used. Guard
/// bytes lie before and behind every tensor and in the gaps between its rows. They are 0xFF, which
/// is a NaN in every floating-point type. Thus a kernel that reads outside a tensor spoils its
/// result, expect_guards() finds what was written outside, and elements that were never written
/// stay NaN.
class Lab {
 public:
  static constexpr std::size_t kGuard = 256;

  explicit Lab(const BackendUnderTest& test, Sharing sharing = Sharing::kOwn)
      : test_(test), sharing_(sharing) {}
  ~Lab() { expect_guards(); }
  Lab(const Lab&) = delete;

  Backend& operator*() { return *open().backend; }
  Backend* operator->() { return open().backend.get(); }
  Queue& queue() { return *open().queue; }
  DType type() const { return test_.type; }

  /// Allocates a tensor whose elements are all NaN in a floating-point type. Between the end of a
  /// row and the next row lie `gap` elements.
  Tensor uninitialized(std::int64_t rows, std::int64_t columns, DType type, std::int64_t gap = 0) {
    const std::int64_t stride = columns + gap;
    char* data = guarded(static_cast<std::size_t>(rows * stride) * size_of(type),
                         static_cast<std::size_t>(columns) * size_of(type),
                         static_cast<std::size_t>(stride) * size_of(type));
    return {data, type, rows, columns, stride};
  }
  /// Allocates a tensor and copies the matrix, whose values the type must hold exactly, into it.
  Tensor put(const Matrix& matrix, DType type, std::int64_t gap = 0) {
    const Tensor tensor = uninitialized(matrix.rows, matrix.columns, type, gap);
    write(matrix, tensor, queue());
    wait(tensor.data);
    return tensor;
  }
  /// Allocates a weight as a model does: rows of zeros behind it fill up a multiple of the
  /// backend's row_multiple().
  Tensor put_weight(const Matrix& matrix) {
    const std::int64_t multiple = (**this).row_multiple();
    Matrix padded = matrix;
    padded.rows = (matrix.rows + multiple - 1) / multiple * multiple;
    padded.values.resize(static_cast<std::size_t>(padded.rows * padded.columns));
    return put(padded, type()).row_range(0, matrix.rows);
  }
  /// Copies the matrix into a tensor of its shape, in the order of the queue. The gaps between rows
  /// stay as they are.
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
  /// Copies a tensor to the host.
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

  /// Allocates an array and copies the values into it.
  template <class T>
  T* put(const std::vector<T>& values) {
    const std::size_t bytes = values.size() * sizeof(T);
    char* data = guarded(bytes, bytes, bytes);
    (**this).upload(queue(), std::as_bytes(std::span(values)), data);
    wait(data);
    return reinterpret_cast<T*>(data);
  }
  /// Copies `count` elements to the host after all that the queue was given before.
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

  /// Expects that no guard byte has changed.
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
  /// Checks the guard bytes and frees all tensors.
  void clear() {
    expect_guards();
    blocks_.clear();
  }

 private:
  // A tensor has `used` bytes between its guards. Its rows of `row` bytes begin `stride` bytes
  // apart.
  struct Block {
    Buffer buffer;
    std::size_t used, row, stride;
  };

  OpenBackend& open() {
    if (open_) return *open_;
    OpenBackend& chosen = sharing_ == Sharing::kShared ? shared_backends()[test_.name] : own_;
    if (!chosen.backend) {
      std::unique_ptr<Backend> backend = test_.make();
      chosen.queue = backend->make_queue();
      chosen.backend = std::move(backend);
    }
    EXPECT_EQ(chosen.backend->compute_type(), test_.type);
    return *(open_ = &chosen);
  }
  // Waits until what was uploaded is on the device, so that another queue may use it.
  void wait(const void* device) { array<std::byte>(device, 1); }
  char* guarded(std::size_t bytes, std::size_t row, std::size_t stride) {
    blocks_.push_back(
        {(**this).allocate(bytes + 2 * kGuard), bytes, row, std::max<std::size_t>(stride, 1)});
    const std::vector<std::byte> fill(bytes + 2 * kGuard, std::byte{0xFF});
    (**this).upload(queue(), fill, blocks_.back().buffer.data());
    wait(blocks_.back().buffer.data());
    return blocks_.back().buffer.as<char>() + kGuard;
  }

  BackendUnderTest test_;
  Sharing sharing_;
  OpenBackend own_;
  OpenBackend* open_ = nullptr;
  std::vector<Block> blocks_;
};

/// This is the base of the suites that run on each backend. A Lab as a member opens nothing before
/// it is used, so a test on a missing GPU can skip itself.
class OnBackend : public testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    if (const std::string why = GetParam().missing(); !why.empty())
      GTEST_SKIP() << "cannot be opened here: " << why;
  }
};

/// Holds a backend and a case to run on it. A case is a struct whose `name` becomes a part of the
/// test's name.
template <class Case>
struct CaseOnBackend {
  BackendUnderTest backend;
  Case test;
};
template <class Case>
void PrintTo(const CaseOnBackend<Case>& param, std::ostream* out) {
  *out << param.backend.name << '_' << param.test.name;
}
/// Names a test BACKEND_CASE.
struct CaseName {
  template <class Case>
  std::string operator()(const testing::TestParamInfo<CaseOnBackend<Case>>& info) const {
    return info.param.backend.name + '_' + info.param.test.name;
  }
};

/// Returns every pair of a backend and a case. Where few_cases(), only each `step`th case is in it.
template <class Case>
std::vector<CaseOnBackend<Case>> on_each(const std::vector<BackendUnderTest>& backends,
                                         const std::vector<Case>& cases, std::size_t step = 1) {
  std::vector<CaseOnBackend<Case>> list;
  for (const BackendUnderTest& backend : backends) {
    for (std::size_t i = 0; i < cases.size(); i += few_cases() ? step : 1)
      list.push_back({backend, cases[i]});
  }
  return list;
}

/// This is the base of the suites that run each of a list of cases on each backend. All their tests
/// share one open backend of each kind, because opening one takes 0.1 s and more on a GPU.
template <class Case>
class OnBackendWith : public testing::TestWithParam<CaseOnBackend<Case>> {
 protected:
  void SetUp() override {
    if (const std::string why = backend().missing(); !why.empty())
      GTEST_SKIP() << "cannot be opened here: " << why;
  }
  const BackendUnderTest& backend() const { return this->GetParam().backend; }
  const Case& test() const { return this->GetParam().test; }

  Lab lab{this->GetParam().backend, Sharing::kShared};
  Random random{7};
};

/// Expects that `call` throws Error and that its message contains each of the texts.
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
