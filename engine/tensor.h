// DType and Tensor: a typed view of a matrix in some backend's memory. A view never frees; Buffer
// (backend.h) owns.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>

namespace xlate {

enum class DType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kInt8 };

/// Bytes of one element.
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

/// A [rows, columns] matrix; consecutive rows are `stride` elements apart. A vector is one row.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;

  template <class T>
  T* as() const {
    assert(sizeof(T) == size_of(dtype));
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  /// Rows [first, first + count).
  Tensor row_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && first + count <= rows);
    return {static_cast<char*>(data) + first * stride * size_of(dtype), dtype, count, columns,
            stride};
  }
  /// Columns [first, first + count), with this tensor's row stride.
  Tensor column_range(std::int64_t first, std::int64_t count) const {
    assert(first >= 0 && first + count <= columns);
    return {static_cast<char*>(data) + first * size_of(dtype), dtype, rows, count, stride};
  }
};

/// Rows of the residual stream, [N, D]: rounded to the type that is computed in, as products read
/// them, and in `low_bits`, int8 [N, D], what that took off them, in a form of the backend's own.
/// Without a rest they are as they are rounded.
struct ResidualRows {
  Tensor rounded, low_bits;
  ResidualRows() = default;
  ResidualRows(const Tensor& rounded, const Tensor& low_bits = {})
      : rounded(rounded), low_bits(low_bits) {}
  explicit operator bool() const { return static_cast<bool>(rounded); }
};

}  // namespace xlate
