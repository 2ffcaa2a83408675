// This file has the loads and stores of rows in vectors of 16 bytes. In registers the values are
// float32. Rows of the residual stream have low bits beside them.
#pragma once

#include <initializer_list>

#include "engine/cuda/norms/residual.cuh"

namespace xlate::cuda {

template <class T>
struct alignas(16) Vector16 {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T values[kSize];
};

// Loads kSize floats, a multiple of 4, from an address that is aligned to 16 bytes, or a single
// float from any address.
template <int kSize>
struct Floats {
  float values[kSize];
  /// Makes all values zero.
  __device__ Floats() : values{} {}
  __device__ explicit Floats(const float* from) {
    if constexpr (kSize == 1) {
      values[0] = *from;
    } else {
#pragma unroll
      for (int i = 0; i < kSize; i += 4)
        *reinterpret_cast<float4*>(values + i) = *reinterpret_cast<const float4*>(from + i);
    }
  }
};

// Rounds two values to T and returns them in a word, the first one in the low half.
template <class T>
__device__ __forceinline__ std::uint32_t pack_two(float a, float b);
template <>
__device__ __forceinline__ std::uint32_t pack_two<__half>(float a, float b) {
  const __half2 two = __floats2half2_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&two);
}
template <>
__device__ __forceinline__ std::uint32_t pack_two<__nv_bfloat16>(float a, float b) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&two);
}
template <class T>
__device__ __forceinline__ float2 unpack_two(std::uint32_t word);
template <>
__device__ __forceinline__ float2 unpack_two<__half>(std::uint32_t word) {
  return __half22float2(*reinterpret_cast<const __half2*>(&word));
}
template <>
__device__ __forceinline__ float2 unpack_two<__nv_bfloat16>(std::uint32_t word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}

// Loads 16 bytes at once. The type is uint4 because the compiler loads a struct of elements one by
// one where it only sees a reference to it.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* from) {
  return *reinterpret_cast<const uint4*>(from);
}
template <class T>
__device__ __forceinline__ void unpack_vector(float (&values)[Vector16<T>::kSize], uint4 vector) {
  const std::uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      values[i] = __uint_as_float(words[i]);
    } else {
      const float2 two = unpack_two<T>(words[i]);
      values[2 * i] = two.x, values[2 * i + 1] = two.y;
    }
  }
}
template <class T>
__device__ __forceinline__ uint4 pack_vector(const float (&values)[Vector16<T>::kSize]) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4)
      words[i] = __float_as_uint(values[i]);
    else
      words[i] = pack_two<T>(values[2 * i], values[2 * i + 1]);
  }
  return {words[0], words[1], words[2], words[3]};
}
// Loads as many values as a vector of T has. X is T or float.
template <int kSize, class X>
__device__ __forceinline__ void load_values(float (&values)[kSize], const X* from) {
  if constexpr (Vector16<X>::kSize == kSize) {
    unpack_vector<X>(values, load_vector(from));
  } else {
    const Floats<kSize> floats(from);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[i] = floats.values[i];
  }
}
// Returns the low bits of a vector of 16-bit values, 8 bytes. For float, which has none, it returns
// zero, and the indices modulo kSize only keep the code valid.
template <class T>
__device__ __forceinline__ uint2 packed_low_bits_of(const float (&exact)[Vector16<T>::kSize],
                                                    uint4 vector) {
  if constexpr (sizeof(T) == 4) return {};
  float rounded[Vector16<T>::kSize];
  unpack_vector<T>(rounded, vector);
  const auto word = [&](int i) {
    const auto low_bits = [&](int j) {
      return low_bits_of<T>(exact[(i + j) % Vector16<T>::kSize],
                            rounded[(i + j) % Vector16<T>::kSize]);
    };
    return pack_low_bits(low_bits(0), low_bits(1), low_bits(2), low_bits(3));
  };
  return {word(0), word(4)};
}
// Adds the values of a vector, widened by their low bits, to `values`.
template <class T>
__device__ __forceinline__ void add_vector(float (&values)[Vector16<T>::kSize], uint4 vector,
                                           uint2 low_bits) {
  float rounded[Vector16<T>::kSize];
  unpack_vector<T>(rounded, vector);
#pragma unroll
  for (int i = 0; i < Vector16<T>::kSize; ++i)
    values[i] += sizeof(T) == 4 ? rounded[i]
                                : widened<T>(rounded[i], i < 4 ? low_bits.x : low_bits.y, i % 4);
}

// This is a row of a ResidualView. Both pointers may be null.
template <class T>
struct ResidualRow {
  T* rounded;
  std::conditional_t<std::is_const_v<T>, const std::int8_t, std::int8_t>* low_bits;
};
template <class T>
__device__ __forceinline__ ResidualRow<T> row_of(const ResidualView<T>& wide, std::int64_t row) {
  return {wide.rounded ? wide.rounded + row * wide.stride : nullptr,
          wide.low_bits ? wide.low_bits + row * wide.low_bits_stride : nullptr};
}

// Rounds a vector of values to T and stores it, with its low bits where the row has them.
template <class T>
__device__ __forceinline__ void store_values(const ResidualRow<T>& out, int column,
                                             const float (&values)[Vector16<T>::kSize]) {
  const uint4 vector = pack_vector<T>(values);
  *reinterpret_cast<uint4*>(out.rounded + column) = vector;
  if (sizeof(T) == 2 && out.low_bits)
    *reinterpret_cast<uint2*>(out.low_bits + column) = packed_low_bits_of<T>(values, vector);
}

// Does the same for one value.
template <class T>
__device__ void store_value(const ResidualRow<T>& out, std::int64_t column, float exact) {
  const T rounded = from_float<T>(exact);
  out.rounded[column] = rounded;
  if (out.low_bits) out.low_bits[column] = clamp_low_bits(low_bits_of<T>(exact, to_float(rounded)));
}

// Returns whether rows can be read in vectors of 16 bytes. `sizes` is the bitwise OR of their
// widths and strides in elements.
template <class T>
bool vector_aligned(std::int64_t sizes, std::initializer_list<const void*> addresses) {
  std::uintptr_t all = static_cast<std::uintptr_t>(sizes) * sizeof(T);
  for (const void* address : addresses) all |= reinterpret_cast<std::uintptr_t>(address);
  return all % 16 == 0;
}

// Returns the same for rows of the residual stream, whose low bits are read 8 bytes at a time. Null
// counts as aligned.
template <class T>
bool vector_aligned(const ResidualView<T>& wide) {
  const bool low_bits =
      !wide.low_bits ||
      (wide.low_bits_stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(wide.low_bits) % 8 == 0);
  return vector_aligned<T>(wide.rounded ? wide.stride : 0, {wide.rounded}) && low_bits;
}

}  // namespace xlate::cuda
