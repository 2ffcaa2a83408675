// Declares the inner loops of the CPU backend over float32 rows. They are compiled for several
// instruction sets, of which one is chosen when the program starts.
#pragma once

#include <cstdint>

#include "engine/backend.h"

namespace xlate::cpu {

/// Returns the instruction set that the loops below were resolved to: "avx512", "avx2" or
/// "baseline".
const char* instruction_set();

/// Computes out = table·scale + position for n elements. `position` may be null.
void embed_row(const float* table, float scale, const float* position, std::int64_t n, float* out);

/// Applies a norm to one row of n elements. `shift` may be null, and `out` may be x.
void norm_row(const float* x, NormKind kind, const float* gain, const float* shift, float epsilon,
              std::int64_t n, float* out);

/// Computes out = activation(x[0, n))·x[n, 2·n) for n elements.
void gate_row(const float* x, Activation activation, std::int64_t n, float* out);

/// Computes y = activation(y + bias) for n elements. `bias` may be null.
void bias_activation_row(float* y, const float* bias, Activation activation, std::int64_t n);

/// Computes out = x·Wᵀ for up to kFewRows rows, with x [m, k], w [n, k] and out [m, n]. It reads
/// the weights once for every four rows and once for each row that is left, and makes no packed
/// copy of them.
inline constexpr std::int64_t kFewRows = 8;
void product_few_rows(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                      std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                      std::int64_t out_stride);

/// Computes x = cap · tanh(x·scale / cap) for n elements.
void cap_row(float* x, float scale, float cap, std::int64_t n);

/// Rotates the pairs (x[j], x[n + j]) of a head by the angles position · rates[j], for n pairs.
void rotate_row(float* x, const float* rates, float position, std::int64_t n);

/// Computes x = softmax(x·scale + bias) for n elements. `bias` may be null. If `cap` is not 0, it
/// bounds x·scale as cap_row does.
void softmax_row(float* x, float scale, float cap, const float* bias, std::int64_t n);

/// Attends with one query over n keys of one head. keys[t] points at the `width` elements of key t,
/// and its value follows `value_offset` elements behind it. Scores become weights as in
/// softmax_row. `scores` is scratch of n floats, and `out` has `width` elements.
void attend_row(const float* query, const float* const* keys, std::int64_t value_offset,
                std::int64_t n, std::int64_t width, float scale, float cap, const float* bias,
                float* scores, float* out);

/// Adds bias, which may be null, to n logits in place. Returns the maximum and the sum of exp(logit
/// − maximum), or a sum of zero if all logits are −∞. The sum is NaN if a logit is +∞ or NaN.
struct MaxSum {
  float max, sum;
};
MaxSum sum_logits(float* logits, const float* bias, std::int64_t n);

/// Returns whether one of n numbers is +∞ or NaN.
bool has_overflow(const float* x, std::int64_t n);

}  // namespace xlate::cpu
