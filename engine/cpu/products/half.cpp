// Implements the conversions by the processor's instructions. The compiler does not use them for
// loops over _Float16.
#include "engine/cpu/products/half.h"

#include <cassert>

#include "engine/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace xlate::cpu {

#if defined(__x86_64__)

namespace {

// Returns whether the processor has AVX2 and the instructions for float16. Not every compiler lets
// ask for the latter by name.
bool has_float16() {
  static const bool has = [] {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  }();
  return has;
}

// Numbers are compared by their bits, so that a NaN and the sign of 0 count, too.
__attribute__((target("avx2,f16c"))) bool narrow_by_8(const float* x, std::int64_t n,
                                                      std::uint16_t* out) {
  __m256i different = _mm256_setzero_si256();
  for (std::int64_t i = 0; i < n; i += 8) {
    const __m256 values = _mm256_loadu_ps(x + i);
    const __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), halves);
    different =
        _mm256_or_si256(different, _mm256_xor_si256(_mm256_castps_si256(values),
                                                    _mm256_castps_si256(_mm256_cvtph_ps(halves))));
  }
  return _mm256_testz_si256(different, different) != 0;
}

__attribute__((target("avx2,f16c"))) void widen_by_8(const std::uint16_t* x, std::int64_t n,
                                                     float* out) {
  for (std::int64_t i = 0; i < n; i += 8)
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
}

__attribute__((target("avx512f"))) void widen_by_16(const std::uint16_t* x, std::int64_t n,
                                                    float* out) {
  // GCC 12 warns of the usual form without a mask.
  for (std::int64_t i = 0; i < n; i += 16)
    _mm512_storeu_ps(
        out + i,
        _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i))));
}

}  // namespace

bool narrow_exactly(const float* x, std::int64_t n, std::uint16_t* out) {
  return n % 16 == 0 && has_float16() && narrow_by_8(x, n, out);
}

void widen(const std::uint16_t* x, std::int64_t n, float* out) {
  assert(n % 16 == 0);
  if (__builtin_cpu_supports("avx512f")) return widen_by_16(x, n, out);
  widen_by_8(x, n, out);
}

#else

bool narrow_exactly(const float*, std::int64_t, std::uint16_t*) { return false; }

void widen(const std::uint16_t*, std::int64_t, float*) {
  fail("float16 weights are not expected on this processor");
}

#endif

}  // namespace xlate::cpu
