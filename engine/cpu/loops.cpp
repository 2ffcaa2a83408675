// Defines the loops of loops.h, which the compiler vectorizes.
#include "engine/cpu/loops.h"

#include <cmath>
#include <cstring>
#include <limits>

// Each public function is compiled once for each instruction set, and what it calls is inlined into
// each copy. With a translation unit for each set and its own -m flags instead, the linker could
// keep an AVX-512 copy of an inline function of the standard library for all callers. Sanitizers
// run before the loader can resolve such functions, so builds with sanitizers use the baseline
// alone.
#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
#define XLATE_CLONES \
  __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define XLATE_CLONES
#endif
#define XLATE_INLINE __attribute__((always_inline)) inline

namespace xlate::cpu {
namespace {

// Returns exp(x) to about 2 units in the last place: x = n·ln 2 + r, exp(r) is a polynomial of
// degree 7 in r, and n is added to the exponent (Cephes' expf).
XLATE_INLINE float fast_exp(float x) {
  x = x < -87.33654f ? -87.33654f : x;
  x = x > 88.37626f ? 88.37626f : x;
  // Adding 1.5·2²³ rounds to the nearest integer, which then stands in the last bits of the sum's
  // significand.
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  std::int32_t bits, power;
  std::memcpy(&bits, &p, 4);
  std::memcpy(&power, &shifted, 4);
  bits += power << 23;
  std::memcpy(&p, &bits, 4);
  return p;
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

XLATE_INLINE void cap_scores(float* x, float scale, float cap, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = cap * std::tanh(x[i] * scale / cap);
}

XLATE_INLINE float dot(const float* a, const float* b, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Computes four rows by two columns of a product at a time, with eight sums in registers. Each
// element of w is loaded once.
XLATE_INLINE void product_4x2(std::int64_t k, const float* x, std::int64_t x_stride,
                              const float* w0, const float* w1, float* out,
                              std::int64_t out_stride) {
  const float *x0 = x, *x1 = x + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
  float a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
#pragma omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)
  for (std::int64_t i = 0; i < k; ++i) {
    a0 += x0[i] * w0[i];
    a1 += x1[i] * w0[i];
    a2 += x2[i] * w0[i];
    a3 += x3[i] * w0[i];
    b0 += x0[i] * w1[i];
    b1 += x1[i] * w1[i];
    b2 += x2[i] * w1[i];
    b3 += x3[i] * w1[i];
  }
  out[0] = a0, out[out_stride] = a1, out[2 * out_stride] = a2, out[3 * out_stride] = a3;
  out[1] = b0, out[out_stride + 1] = b1, out[2 * out_stride + 1] = b2, out[3 * out_stride + 1] = b3;
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
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace

const char* instruction_set() {
#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
  // These are the features that the resolver of target_clones asks for.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512cd")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
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
  for (std::int64_t i = 0; i < n; ++i) out[i] = activate(x[i], activation) * x[n + i];
}

XLATE_CLONES void bias_activation_row(float* y, const float* bias, Activation activation,
                                      std::int64_t n) {
  if (bias) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] += bias[i];
  }
  if (activation == Activation::kRelu) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = activate(y[i], Activation::kRelu);
  } else if (activation == Activation::kSwish) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = activate(y[i], Activation::kSwish);
  } else if (activation != Activation::kNone) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = activate(y[i], activation);
  }
}

XLATE_CLONES void product_few_rows(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                                   std::int64_t x_stride, const float* w, std::int64_t w_stride,
                                   float* out, std::int64_t out_stride) {
  std::int64_t j = 0;
  for (; j + 2 <= n; j += 2) {
    const float *w0 = w + j * w_stride, *w1 = w0 + w_stride;
    std::int64_t i = 0;
    for (; i + 4 <= m; i += 4)
      product_4x2(k, x + i * x_stride, x_stride, w0, w1, out + i * out_stride + j, out_stride);
    for (; i < m; ++i) {
      const float* row = x + i * x_stride;
      out[i * out_stride + j] = dot(row, w0, k);
      out[i * out_stride + j + 1] = dot(row, w1, k);
    }
  }
  for (; j < n; ++j) {
    for (std::int64_t i = 0; i < m; ++i)
      out[i * out_stride + j] = dot(x + i * x_stride, w + j * w_stride, k);
  }
}

XLATE_CLONES void cap_row(float* x, float scale, float cap, std::int64_t n) {
  cap_scores(x, scale, cap, n);
}

// The angle is rounded to float32 once, as Hugging Face's implementations round it.
XLATE_CLONES void rotate_row(float* x, const float* rates, float position, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    const float angle = position * rates[j], sine = std::sin(angle), cosine = std::cos(angle);
    const float first = x[j], second = x[n + j];
    x[j] = first * cosine - second * sine;
    x[n + j] = second * cosine + first * sine;
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

XLATE_CLONES void attend_row(const float* query, const float* const* keys,
                             std::int64_t value_offset, std::int64_t n, std::int64_t width,
                             float scale, float cap, const float* bias, float* scores, float* out) {
  for (std::int64_t t = 0; t < n; ++t) scores[t] = dot(query, keys[t], width);
  if (cap != 0) {
    cap_scores(scores, scale, cap, n);
    scale = 1;
  }
  if (bias) {
#pragma omp simd
    for (std::int64_t t = 0; t < n; ++t) scores[t] = scores[t] * scale + bias[t];
    scale = 1;
  }
  softmax(scores, scale, n);
  for (std::int64_t i = 0; i < width; ++i) out[i] = 0;
  for (std::int64_t t = 0; t < n; ++t) {
    const float* value = keys[t] + value_offset;
    const float weight = scores[t];
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) out[i] += weight * value[i];
  }
}

XLATE_CLONES MaxSum sum_logits(float* logits, const float* bias, std::int64_t n) {
  if (bias) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) logits[i] += bias[i];
  }
  const float max = largest(logits, n);
  // No token of this range may be chosen, or none is a number.
  if (max == -std::numeric_limits<float>::infinity())
    return {max, overflows(logits, n) ? std::numeric_limits<float>::quiet_NaN() : 0};
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += fast_exp(logits[i] - max);
  return {max, sum};
}

XLATE_CLONES bool has_overflow(const float* x, std::int64_t n) { return overflows(x, n); }

}  // namespace xlate::cpu
