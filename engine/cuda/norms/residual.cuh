// This file has the conversions to and from the low bits of the residual stream (ResidualRows).
// Each value is kept rounded to T, with an int8 beside it that tells how far the exact value is
// from the rounded one, in steps of 2^kLowBitsShift units in the last place of float32. A value
// thus has 8 more bits than T. The bit patterns of floats of one sign are in the order of their
// values, so the difference of two patterns counts units in the last place, even across a power of
// two.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// Half a unit in the last place of T is 128 steps, and an int8 holds −128 … 127. A difference that
// comes to +128 steps, at a tie that T rounds towards zero or next to one, loses one step. Where
// the rounded value is subnormal in T, the difference may be more steps and is cut to the range of
// an int8. A value that overflows float16 is stored as an infinity without low bits, so that it
// stays one: with low bits it would be a finite value, which the next norm makes zeros of.
template <class T>
inline constexpr int kLowBitsShift = 0;
template <>
inline constexpr int kLowBitsShift<__half> = 5;
template <>
inline constexpr int kLowBitsShift<__nv_bfloat16> = 8;

// Returns the low bits before they are cut to the range of an int8.
template <class T>
__device__ __forceinline__ int low_bits_of(float exact, float rounded) {
  constexpr int kHalf = (1 << kLowBitsShift<T>) / 2;
  if (sizeof(T) == 2 && fabsf(rounded) == INFINITY) return 0;
  return static_cast<int>(__float_as_uint(exact) - __float_as_uint(rounded) + kHalf) >>
         kLowBitsShift<T>;
}
// Returns the float32 value that a rounded value and its low bits stand for.
template <class T>
__device__ __forceinline__ float widened(float rounded, int low_bits) {
  return __uint_as_float(__float_as_uint(rounded) +
                         (static_cast<unsigned>(low_bits) << kLowBitsShift<T>));
}
// Returns the same, where the low bits are byte i of a word. A dot product of four int8 extracts,
// scales and, in float16, adds them in one instruction; its factors must be int8 themselves.
template <class T>
__device__ __forceinline__ float widened(float rounded, std::uint32_t word, int i) {
  constexpr int kStep = 1 << kLowBitsShift<T>, kFactor = kStep < 128 ? kStep : 64;
  const int word_bits = static_cast<int>(word), factors = kFactor << 8 * i;
  if (kStep == kFactor) return __int_as_float(__dp4a(word_bits, factors, __float_as_int(rounded)));
  return __uint_as_float(__float_as_uint(rounded) +
                         static_cast<unsigned>(__dp4a(word_bits, factors, 0)) * (kStep / kFactor));
}

__device__ __forceinline__ std::int8_t clamp_low_bits(int low_bits) {
  return static_cast<std::int8_t>(max(-128, min(127, low_bits)));
}
// Returns the low bits of four values in a word, each cut to the range of an int8; `a` is the
// lowest byte.
__device__ __forceinline__ std::uint32_t pack_low_bits(int a, int b, int c, int d) {
  std::uint32_t word;
  asm("{\n .reg .b32 high;\n cvt.pack.sat.s8.s32.b32 high, %4, %3, 0;\n"
      " cvt.pack.sat.s8.s32.b32 %0, %2, %1, high;\n}"
      : "=r"(word)
      : "r"(a), "r"(b), "r"(c), "r"(d));
  return word;
}

}  // namespace xlate::cuda
