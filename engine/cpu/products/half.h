// Declares the conversions between float32 and float16, in which float32 weights are stored where
// that loses nothing.
#pragma once

#include <cstdint>

namespace xlate::cpu {

/// Writes n numbers in float16 and returns true if each of them is exactly the same number there.
/// Otherwise returns false, and `out` has no meaning. Always returns false if n is no multiple of
/// 16 or the processor has no instructions for float16.
bool narrow_exactly(const float* x, std::int64_t n, std::uint16_t* out);

/// Writes n numbers in float16, which narrow_exactly() has made, in float32. n is a multiple of 16.
void widen(const std::uint16_t* x, std::int64_t n, float* out);

}  // namespace xlate::cpu
