// Typed views of matrices in a backend's memory: DType, Tensor and ResidualRows. A view does not
// own its memory. A Buffer (engine/backend.h) does.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>

namespace xlate {

/// The type of a tensor's elements.
enum class DType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kInt8 };

/// Returns the size of one element in bytes.
constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::kFloat32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kInt8:
      return 1;
  }
  return 0;
}

/// Returns the type's name, as messages and the report show it.
constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kInt8:
      return "int8";
  }
  return "?";
}

/// A matrix of [rows, columns]. Consecutive rows begin `stride` elements apart, and the columns of
/// a row lie next to each other. A vector is a matrix of one row. A tensor without data stands for
/// one that is absent.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;

  /// Returns the address of the first element, as a pointer to T, whose size must be that of an
  /// element.
  template <class T>
  T* as() const {
    assert(sizeof(T) == size_of(dtype));
    return static_cast<T*>(data);
  }
  /// Whether the tensor is present.
  explicit operator bool() const { return data != nullptr; }
  /// Returns a view of the rows [first, first + count), which must exist.
  Tensor row_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && first + count <= rows);
    return {static_cast<char*>(data) + first * stride * size_of(dtype), dtype, count, columns,
            stride};
  }
  /// Returns a view of the columns [first, first + count), which must exist. It has the stride of
  /// this tensor.
  Tensor column_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && first + count <= columns);
    return {static_cast<char*>(data) + first * size_of(dtype), dtype, rows, count, stride};
  }
};

/// Rows of the residual stream. `rounded` [N, D] holds them in the backend's compute type, and
/// products read these. `low_bits` [N, D] holds in int8 what this rounding takes off each value.
/// Each backend encodes the low bits in its own way. Where `low_bits` is absent, the rows are
/// exactly `rounded`.
struct ResidualRows {
  Tensor rounded, low_bits;
  ResidualRows() = default;
  /// Converts implicitly, so that a plain tensor can be passed as rows without low bits.
  ResidualRows(const Tensor& rounded, const Tensor& low_bits = {})
      : rounded(rounded), low_bits(low_bits) {}
  explicit operator bool() const { return static_cast<bool>(rounded); }
};

}  // namespace xlate
