// Layer norms: of rows, and of a product's rows in the product's own kernel.
#pragma once

#include <cuda.h>

#include "engine/cuda/views.h"

namespace xlate::cuda {

/// out = layer norm of x + its bias + residual, in float32. X is T, or float where x is a product
/// that was not rounded. Either x or the residual may be null.
template <class T, class X = T>
struct NormArgs {
  const X* x;                      // [N, D] or null
  const T* x_bias;                 // [D] or null
  ResidualView<const T> residual;  // [N, D] or null
  const float* gain;               // [D]
  const float* bias;               // [D]
  ResidualView<T> out;             // [N, D], may be x or the residual
  std::int64_t rows, width, x_stride;
  float epsilon;
};
template <class T, class X>
void layer_norm(const NormArgs<T, X>&, cudaStream_t);

/// out = layer norm of x·Wᵀ + b + residual, on compute capability 9.0 (linear_norm.cu): the bits of
/// a product in float32 and of layer_norm.
template <class T>
struct LinearNormArgs {
  CUtensorMap x;  // [N, depth] of T, in boxes of tile_rows·256/width rows (products/tensor_map.h)
  CUtensorMap weight;                    // [width, depth] of T, in boxes of 256 rows
  const T* bias;                         // [width] or null
  const T* residual;                     // [N, width] …
  const std::int8_t* residual_low_bits;  // … and its rest
  const float* gain;                     // [width]
  const float* shift;                    // [width]
  T* out;                                // [N, width], may be the residual
  std::int8_t* out_low_bits;
  int rows, depth, width, tile_rows;
  int residual_stride, out_stride;  // of the rests, too; rows·stride is less than 2³¹
  float epsilon;
};
inline constexpr int kLinearNormOutputs = 256;  // of a block
/// Whether there is a kernel for it, whatever the number of rows.
bool linear_norm_supports(int capability, std::int64_t depth, std::int64_t width);
/// Whether there is a kernel for it, and it is the faster way; `capability` is 10·major + minor of
/// the device.
bool linear_norm_is_faster(int capability, std::int64_t rows, std::int64_t depth,
                           std::int64_t width);
/// Rows of a tile that make this many rows take the shortest.
int linear_norm_tile(std::int64_t rows, std::int64_t depth, std::int64_t width,
                     int multiprocessors);
/// T is __half or __nv_bfloat16; all is aligned to 16 bytes.
template <class T>
void linear_norm(const LinearNormArgs<T>&, cudaStream_t);

}  // namespace xlate::cuda
