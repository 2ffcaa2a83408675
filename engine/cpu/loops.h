// Declares the inner loops of the CPU backend over float32 rows. They are compiled for several
// instruction sets, of which one is chosen when the program starts.
#pragma once

#include <cstdint>

#include "engine/backend.h"
#include "engine/cpu/products/product_library.h"

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

/// Computes out = activation(sums + bias) for the n sums of a product. `bias` may be null.
void finish_row(const float* sums, const float* bias, Activation activation, std::int64_t n,
                float* out);
/// Does the same for sums of int8: out = activation((sums − offsets) · row_scale · scales + bias).
void finish_row(const std::int32_t* sums, const std::int32_t* offsets, float row_scale,
                const float* scales, const float* bias, Activation activation, std::int64_t n,
                float* out);

/// Rounds n elements to int8 and returns the scale by which they must be multiplied. The largest
/// magnitude becomes `largest`, at most 127. If an element is infinite or NaN, the scale is NaN.
float quantize_row(const float* x, std::int64_t n, int largest, std::int8_t* out);
/// Does the same with 127, and adds kInputOffset to each element, as products read them.
float quantize_inputs(const float* x, std::int64_t n, std::uint8_t* out);
/// Rounds n elements to bfloat16, to the nearest value and among two to the even one.
void round_row(const float* x, std::int64_t n, std::uint16_t* out);
/// Rounds n elements in the same way, and leaves them in float32.
void round_in_place(float* x, std::int64_t n);

/// Computes x = cap · tanh(x·scale / cap) for n elements.
void cap_row(float* x, float scale, float cap, std::int64_t n);

/// Computes the sines and cosines of the angles position · rates[j], for n of them.
void rotation_of(const float* rates, float position, std::int64_t n, float* sines, float* cosines);
/// Rotates the pairs (x[j], x[n + j]) of a head by angles with these sines and cosines, for n
/// pairs.
void rotate_row(float* x, const float* sines, const float* cosines, std::int64_t n);

/// Computes x = softmax(x·scale + bias) for n elements. `bias` may be null. If `cap` is not 0, it
/// bounds x·scale as cap_row does.
void softmax_row(float* x, float scale, float cap, const float* bias, std::int64_t n);

/// Returns the maximum of n logits and the sum of exp(logit − maximum), or a sum of zero if all
/// logits are −∞. The sum is NaN if a logit is +∞ or NaN.
struct MaxSum {
  float max, sum;
};
MaxSum sum_logits(const float* logits, std::int64_t n);

/// Returns the largest of n numbers. Those that are NaN do not count, and without others it is −∞.
float largest_of(const float* x, std::int64_t n);

/// Returns whether one of n numbers is +∞ or NaN.
bool has_overflow(const float* x, std::int64_t n);

}  // namespace xlate::cpu
