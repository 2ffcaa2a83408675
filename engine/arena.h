// One buffer lent out in pieces, all taken back at once: scratch whose addresses never change.
#pragma once

#include "engine/backend.h"

namespace xlate {

class Arena {
 public:
  Arena() = default;
  Arena(Backend& backend, std::size_t bytes) : buffer_(backend.allocate(bytes)) {}

  /// Bytes that a [rows, columns] tensor takes here.
  static std::size_t bytes_of(std::int64_t rows, std::int64_t columns, std::size_t element) {
    const std::size_t bytes =
        static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * element;
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  Tensor tensor(DType type, std::int64_t rows, std::int64_t columns) {
    return {take(bytes_of(rows, columns, size_of(type))), type, rows, columns, columns};
  }
  template <class T>
  T* array(std::int64_t count) {
    return static_cast<T*>(take(bytes_of(1, count, sizeof(T))));
  }
  void clear() { used_ = 0; }

 private:
  static constexpr std::size_t kAlignment = 256;
  void* take(std::size_t bytes) {
    assert(used_ + bytes <= buffer_.bytes());
    void* data = buffer_.as<char>() + used_;
    used_ += bytes;
    return data;
  }
  Buffer buffer_;
  std::size_t used_ = 0;
};

}  // namespace xlate
