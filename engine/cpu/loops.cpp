// Defines the loops of loops.h, which the compiler vectorizes.
#include "engine/cpu/loops.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

// Each public function is compiled once for each instruction set, and what it calls is inlined into
// each copy. With a translation unit for each set and its own -m flags instead, the linker could
// keep an AVX-512 copy of an inline function of the standard library for all callers. Sanitizers
// run before the loader can resolve such functions, so builds with sanitizers use the baseline
// alone.
#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
#define XLATE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define XLATE_CLONES
#endif
#define XLATE_INLINE __attribute__((always_inline)) inline

namespace xlate::cpu {
namespace {

// Returns exp(x) to about 2 units in the last place: x = n·ln 2 + r, exp(r) is a polynomial of
// degree 7 in r, and is multiplied by 2ⁿ (Cephes' expf). Returns NaN for a NaN.
XLATE_INLINE float fast_exp(float x) {
  x = x < -87.33654f ? -87.33654f : x;
  x = x > 88.3f ? 88.3f : x;
  // Adding 1.5·2²³ rounds to the nearest integer, which then stands in the last bits of the sum's
  // significand. With 127 more these are the bits of the exponent of 2ⁿ.
  constexpr float kShift = 12582912.0f + 127.0f;
  const float shifted = x * 1.44269504f + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits <<= 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

XLATE_INLINE float exp_sum(float* x, float scale, float max, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = fast_exp(x[i] * scale - max);
    sum += x[i];
  }
  return sum;
}

XLATE_INLINE float largest(const float* x, std::int64_t n) {
  float max = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : max)
  for (std::int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

XLATE_INLINE bool overflows(const float* x, std::int64_t n) {
  int found = 0;
#pragma omp simd reduction(| : found)
  for (std::int64_t i = 0; i < n; ++i)
    found |= x[i] < std::numeric_limits<float>::infinity() ? 0 : 1;
  return found != 0;
}

XLATE_INLINE void softmax(float* x, float scale, std::int64_t n) {
  const float inverse = 1.0f / exp_sum(x, scale, largest(x, n) * scale, n);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

// Returns tanh(x) to about 1e-7: 1 − 2 / (exp(2·x) + 1), and near 0, where this cancels, the first
// terms of the series.
XLATE_INLINE float fast_tanh(float x) {
  const float square = x * x;
  const float near =
      x * (1.0f +
           square * (-0.333333333f +
                     square * (0.133333333f + square * (-0.0539682540f + square * 0.0218694885f))));
  const float far = 1.0f - 2.0f / (fast_exp(2.0f * x) + 1.0f);
  return square < 0.0625f ? near : far;
}

// Returns erf(x) to about 2e-7 (Abramowitz and Stegun 1964, 7.1.26).
XLATE_INLINE float fast_erf(float x) {
  const float size = std::fabs(x), t = 1.0f / (1.0f + 0.3275911f * size);
  const float sum =
      t * (0.254829592f +
           t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const float result = 1.0f - sum * fast_exp(-size * size);
  return x < 0 ? -result : result;
}

// Rounds n elements to whole numbers of at most `limit`, adds the offset, and returns the scale.
template <class Out>
XLATE_INLINE float quantize(const float* x, std::int64_t n, float limit, std::int32_t offset,
                            Out* out) {
  float most = 0;
#pragma omp simd reduction(max : most)
  for (std::int64_t i = 0; i < n; ++i) most = std::fabs(x[i]) > most ? std::fabs(x[i]) : most;
  if (overflows(x, n) || !(most < std::numeric_limits<float>::infinity())) {
    std::memset(out, offset, static_cast<std::size_t>(n));
    return std::numeric_limits<float>::quiet_NaN();
  }
  // The quotient must be finite. Smaller numbers than this become 0.
  const float inverse = most >= limit * std::numeric_limits<float>::min() ? limit / most : 0.0f;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    // The product is rounded to float32 first. Added to a number, it might not be.
    out[i] = static_cast<Out>(static_cast<std::int32_t>(std::rint(x[i] * inverse)) + offset);
  }
  return most / limit;
}

// Returns a − b, which is right even where a and b have lost their upper bits.
XLATE_INLINE float whole_difference(std::int32_t a, std::int32_t b) {
  return static_cast<float>(
      static_cast<std::int32_t>(static_cast<std::uint32_t>(a) - static_cast<std::uint32_t>(b)));
}

// Returns the bits of x in bfloat16, which are those of the nearest number in float32 whose lower
// half is 0. Of two equally near ones the last bit is even.
XLATE_INLINE std::uint32_t upper_half(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // A NaN must not become an infinity.
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded;
}

XLATE_INLINE void cap_scores(float* x, float scale, float cap, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = cap * fast_tanh(x[i] * scale / cap);
}

XLATE_INLINE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kSwish:
      return x / (1.0f + fast_exp(-x));
    case Activation::kGelu:
      return 0.5f * x * (1.0f + fast_erf(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + fast_tanh(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

// Calls body(tag) with the activation as a constant of the tag, so that its loop has no branches.
template <class Body>
XLATE_INLINE void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kNone:
      return body(std::integral_constant<Activation, Activation::kNone>());
    case Activation::kRelu:
      return body(std::integral_constant<Activation, Activation::kRelu>());
    case Activation::kSwish:
      return body(std::integral_constant<Activation, Activation::kSwish>());
    case Activation::kGelu:
      return body(std::integral_constant<Activation, Activation::kGelu>());
    case Activation::kGeluTanh:
      return body(std::integral_constant<Activation, Activation::kGeluTanh>());
  }
}

XLATE_INLINE void activate_row(float* y, Activation activation, std::int64_t n) {
  if (activation == Activation::kNone) return;
  with_activation(
      activation, [=](auto tag) __attribute__((always_inline)) {
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) y[i] = activate(y[i], tag());
      });
}

}  // namespace

const char* instruction_set() {
#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
  // The resolver of target_clones asks the same. The names of processors, such as haswell, would
  // stand for these models alone, and not for newer ones.
  if (__builtin_cpu_supports("x86-64-v4")) return "avx512";
  if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
  return "baseline";
}

XLATE_CLONES void embed_row(const float* table, float scale, const float* position, std::int64_t n,
                            float* out) {
  if (position) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = table[i] * scale + position[i];
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = table[i] * scale;
  }
}

XLATE_CLONES void norm_row(const float* x, NormKind kind, const float* gain, const float* shift,
                           float epsilon, std::int64_t n, float* out) {
  float mean = 0;
  if (kind == NormKind::kLayer) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < n; ++i) sum += x[i];
    mean = sum / static_cast<float>(n);
  }
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon);
  if (shift) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * inverse * gain[i] + shift[i];
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * inverse * gain[i];
  }
}

XLATE_CLONES void gate_row(const float* x, Activation activation, std::int64_t n, float* out) {
  with_activation(
      activation, [=](auto tag) __attribute__((always_inline)) {
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) out[i] = activate(x[i], tag()) * x[n + i];
      });
}

XLATE_CLONES void finish_row(const float* sums, const float* bias, Activation activation,
                             std::int64_t n, float* out) {
  if (bias) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = sums[i] + bias[i];
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = sums[i];
  }
  activate_row(out, activation, n);
}

XLATE_CLONES void finish_row(const std::int32_t* sums, const std::int32_t* offsets, float row_scale,
                             const float* scales, const float* bias, Activation activation,
                             std::int64_t n, float* out) {
  if (bias) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
      out[i] = whole_difference(sums[i], offsets[i]) * (row_scale * scales[i]) + bias[i];
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i)
      out[i] = whole_difference(sums[i], offsets[i]) * (row_scale * scales[i]);
  }
  activate_row(out, activation, n);
}

XLATE_CLONES float quantize_row(const float* x, std::int64_t n, int largest, std::int8_t* out) {
  return quantize(x, n, static_cast<float>(largest), 0, out);
}

XLATE_CLONES float quantize_inputs(const float* x, std::int64_t n, std::uint8_t* out) {
  return quantize(x, n, 127, kInputOffset, out);
}

XLATE_CLONES void round_row(const float* x, std::int64_t n, std::uint16_t* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<std::uint16_t>(upper_half(x[i]));
}

XLATE_CLONES void round_in_place(float* x, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t bits = upper_half(x[i]) << 16;
    std::memcpy(x + i, &bits, 4);
  }
}

XLATE_CLONES void cap_row(float* x, float scale, float cap, std::int64_t n) {
  cap_scores(x, scale, cap, n);
}

// The angle is rounded to float32 once, as Hugging Face's implementations round it.
void rotation_of(const float* rates, float position, std::int64_t n, float* sines, float* cosines) {
  for (std::int64_t j = 0; j < n; ++j) {
    const float angle = position * rates[j];
    sines[j] = std::sin(angle), cosines[j] = std::cos(angle);
  }
}

XLATE_CLONES void rotate_row(float* x, const float* sines, const float* cosines, std::int64_t n) {
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) {
    const float first = x[j], second = x[n + j];
    x[j] = first * cosines[j] - second * sines[j];
    x[n + j] = second * cosines[j] + first * sines[j];
  }
}

XLATE_CLONES void softmax_row(float* x, float scale, float cap, const float* bias, std::int64_t n) {
  if (cap != 0) {
    cap_scores(x, scale, cap, n);
    scale = 1;
  }
  if (!bias) return softmax(x, scale, n);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = x[i] * scale + bias[i];
  softmax(x, 1, n);
}

XLATE_CLONES MaxSum sum_logits(const float* logits, std::int64_t n) {
  const float max = largest(logits, n);
  // No token of this range may be chosen, or none is a number.
  if (max == -std::numeric_limits<float>::infinity())
    return {max, overflows(logits, n) ? std::numeric_limits<float>::quiet_NaN() : 0};
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += fast_exp(logits[i] - max);
  return {max, sum};
}

XLATE_CLONES float largest_of(const float* x, std::int64_t n) { return largest(x, n); }

XLATE_CLONES bool has_overflow(const float* x, std::int64_t n) { return overflows(x, n); }

}  // namespace xlate::cpu
