// Arena: one buffer of a backend that is lent in parts, which are all taken back at once.
#pragma once

#include "engine/backend.h"

namespace xlate {

/// Lends parts of its buffer from the front on. As long as the requests are the same from clear()
/// to clear(), the parts have the same addresses each time.
class Arena {
 public:
  Arena() = default;
  /// Allocates the buffer. Throws Error if the backend has too little memory.
  Arena(Backend& backend, std::size_t bytes) : buffer_(backend.allocate(bytes)) {}

  /// Returns the bytes that a tensor of [rows, columns] takes of an arena, where an element has
  /// `element` bytes. Every part takes a multiple of kAlignment bytes.
  static std::size_t bytes_of(std::int64_t rows, std::int64_t columns, std::size_t element) {
    const std::size_t bytes =
        static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * element;
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  /// Lends an uninitialized tensor of [rows, columns], whose rows lie next to each other. The arena
  /// must have room for it.
  Tensor tensor(DType type, std::int64_t rows, std::int64_t columns) {
    return {take(bytes_of(rows, columns, size_of(type))), type, rows, columns, columns};
  }
  /// Lends an uninitialized array of `count` elements. The arena must have room for it.
  template <class T>
  T* array(std::int64_t count) {
    return static_cast<T*>(take(bytes_of(1, count, sizeof(T))));
  }
  /// Takes all parts back. The buffer stays allocated.
  void clear() { used_ = 0; }

 private:
  static constexpr std::size_t kAlignment = 256;  // bytes
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
