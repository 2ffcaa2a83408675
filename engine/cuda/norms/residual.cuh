// Rows of the residual stream (ResidualRows): beside each value, rounded to T, an int8 that says
// how far from it the value itself is, in steps of 2^kLowBitsShift of float32's last place: 8 more
// bits than T has. The bits of floats of one sign are in the order of their values, so that the
// difference of two of them is a number of such places, across powers of two as well.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// Half a place of T is 128 steps; a tie loses one of them, and where T's numbers are subnormal it
// is more, and the rest is cut.
template <class T>
inline constexpr int kLowBitsShift = 0;
template <>
inline constexpr int kLowBitsShift<__half> = 5;
template <>
inline constexpr int kLowBitsShift<__nv_bfloat16> = 8;

template <class T>
__device__ __forceinline__ int low_bits_of(float exact, float rounded) {
  constexpr int kHalf = (1 << kLowBitsShift<T>) / 2;
  return static_cast<int>(__float_as_uint(exact) - __float_as_uint(rounded) + kHalf) >>
         kLowBitsShift<T>;
}
template <class T>
__device__ __forceinline__ float widened(float rounded, int low_bits) {
  return __uint_as_float(__float_as_uint(rounded) +
                         (static_cast<unsigned>(low_bits) << kLowBitsShift<T>));
}
// … by the i-th rest of a word.
template <class T>
__device__ __forceinline__ float widened(float rounded, std::uint32_t word, int i) {
  constexpr int kStep = 1 << kLowBitsShift<T>, kFactor = kStep < 128 ? kStep : 64;  // of an int8
  const int word_bits = static_cast<int>(word), factors = kFactor << 8 * i;
  if (kStep == kFactor) return __int_as_float(__dp4a(word_bits, factors, __float_as_int(rounded)));
  return __uint_as_float(__float_as_uint(rounded) +
                         static_cast<unsigned>(__dp4a(word_bits, factors, 0)) * (kStep / kFactor));
}

__device__ __forceinline__ std::int8_t clamp_low_bits(int low_bits) {
  return static_cast<std::int8_t>(max(-128, min(127, low_bits)));
}
// Four of them in a word.
__device__ __forceinline__ std::uint32_t pack_low_bits(int a, int b, int c, int d) {
  std::uint32_t word;
  asm("{\n .reg .b32 high;\n cvt.pack.sat.s8.s32.b32 high, %4, %3, 0;\n"
      " cvt.pack.sat.s8.s32.b32 %0, %2, %1, high;\n}"
      : "=r"(word)
      : "r"(a), "r"(b), "r"(c), "r"(d));
  return word;
}

}  // namespace xlate::cuda
