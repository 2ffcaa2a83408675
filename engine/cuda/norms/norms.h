// This header has the launchers of the layer norm of rows, and of a product with the layer norm
// behind it as one kernel.
#pragma once

#include <cuda.h>

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// Computes sum = (x + x_bias) · x_scale + residual and out = norm(sum), in float32. X is T, or
/// float where x holds the accumulators of a product. A term that is null is left out, and a result
/// that is null is not stored.
template <class T, class X = T>
struct NormArgs {
  const X* x;                      // [N, D] or null
  const T* x_bias;                 // [D] or null
  ResidualView<const T> residual;  // [N, D] or null
  const float* gain;               // [D], or null if there is no norm
  const float* shift;              // [D] or null
  // [N, D]. Either may be x or the residual.
  ResidualView<T> sum, out;
  std::int64_t rows, width, x_stride;
  float epsilon;
  bool rms;  // The norm is an RMS norm. Otherwise it is a layer norm.
  float x_scale = 1;
};
template <class T, class X>
void norm_rows(const NormArgs<T, X>&, cudaStream_t);

/// Computes a product and the norm behind it, on compute capability 9.0 (linear_norm.cuh): sum =
/// x·Wᵀ + b + residual, and norm(sum) from the unrounded sum. In post-norm networks, where `normed`
/// is null, out = norm(sum), a layer norm with a shift. In pre-norm networks out = sum and normed =
/// norm(sum). The bits are those of a product without its bias into float32, followed by norm_rows,
/// which adds the bias and the residual.
template <class T>
struct LinearNormArgs {
  // x is [N, depth] of T, in boxes of tile_rows·256/width rows (products/tensor_map.h).
  CUtensorMap x;
  // The weight is [width, depth] of T, in boxes of 256 rows.
  CUtensorMap weight;
  const T* bias;                         // [width] or null
  const T* residual;                     // [N, width]
  const std::int8_t* residual_low_bits;  // [N, width]
  const float* gain;                     // [width]
  const float* shift;                    // [width]. It may be null where `normed` is not.
  // [N, width]. out and out_low_bits may be the residual and its low bits.
  T* out;
  std::int8_t* out_low_bits;
  // tile_rows is what linear_norm_tile returns.
  int rows, depth, width, tile_rows;
  // Values and low bits have the same strides. rows·stride is less than 2³¹.
  int residual_stride, out_stride;
  float epsilon;
  // The norm is an RMS norm. It may be true only where `normed` is not null.
  bool rms;
  T* normed;  // [N, width] or null
  int normed_stride;
};
// A thread block computes this many outputs.
inline constexpr int kLinearNormOutputs = 256;
/// Returns whether the kernel supports these shapes: widths of 256, 512, 768 and 1024, and depths
/// in multiples of 64. `capability` is 10·major + minor of the device.
bool linear_norm_supports(int capability, std::int64_t depth, std::int64_t width);
/// Returns whether the kernel supports these shapes and is expected to be faster than a product and
/// a norm as separate kernels.
bool linear_norm_is_faster(int capability, std::int64_t rows, std::int64_t depth,
                           std::int64_t width);
/// Returns the number of rows of a tile with which the kernel is expected to take the shortest
/// time. It is a multiple of 8·width/256.
int linear_norm_tile(std::int64_t rows, std::int64_t depth, std::int64_t width,
                     int multiprocessors);
/// T is __half or __nv_bfloat16. All addresses and rows are aligned to 16 bytes.
template <class T>
void linear_norm(const LinearNormArgs<T>&, cudaStream_t);

}  // namespace xlate::cuda
