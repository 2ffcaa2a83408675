// The CPU's inner loops over float32 rows, compiled for several instruction sets and picked when
// the program starts.
#pragma once

#include <cstdint>

#include "engine/backend.h"

namespace xlate::cpu {

/// The instruction set that the loops below were resolved to: "avx512", "avx2" or "baseline".
const char* instruction_set();

/// out = table·scale + position, n elements.
void embed_row(const float* table, float scale, const float* position, std::int64_t n, float* out);

/// Layer norm of one row of n elements; out may be x.
void norm_row(const float* x, const float* gain, const float* bias, float epsilon, std::int64_t n,
              float* out);

/// y = activation(y + bias) over n elements; bias may be null.
void bias_activation_row(float* y, const float* bias, Activation activation, std::int64_t n);

/// y[i] = x[i]·W for up to kFewRows rows: x [m, k], w [n, k], out [m, n]. Reads each weight once
/// and packs nothing.
inline constexpr std::int64_t kFewRows = 8;
void product_few_rows(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                      std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                      std::int64_t out_stride);

/// x = softmax(x·scale) over n elements.
void softmax_row(float* x, float scale, std::int64_t n);

/// One query over n keys of one head: keys[t] points at the key's `width` elements, the value's are
/// `value_offset` behind. scores is scratch of n floats; out has `width` elements.
void attend_row(const float* query, const float* const* keys, std::int64_t value_offset,
                std::int64_t n, std::int64_t width, float scale, float* scores, float* out);

/// Adds bias (may be null) to n logits; returns their maximum and the sum of exp(logit − maximum).
struct MaxSum {
  float max, sum;
};
MaxSum sum_logits(float* logits, const float* bias, std::int64_t n);

}  // namespace xlate::cpu
