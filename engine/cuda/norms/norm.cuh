// This file has the norm of a row by a warp, in float32: layer norm (Ba, Kiros, Hinton 2016), or
// RMS norm (Zhang, Sennrich 2019). Every kernel that calls norm_values or norm_vectors sums in the
// same order, wherever the row is stored, so that results have the same bits. SoloNorm
// (solo/norms.cuh) calls moments() alone, with the same order, and norm_row_kernel (layer_norm.cu)
// with another one.
#pragma once

#include "engine/cuda/norms/vectors.cuh"

namespace xlate::cuda {

// Finds mean (x) and 1/√(variance + epsilon) (y) of kRows rows. visit(add) must call add(row,
// element) for each element that this lane holds. It is called twice: for the mean, and for the
// squared deviations from it. With `rms` the mean is taken to be zero. The mean is rounded by
// __fmul_rn, which the compiler does not contract with the subtraction of the mean. Otherwise one
// kernel would contract the two and another would not, and their results would differ wherever the
// width is no power of two.
template <int kRows, class Visit>
__device__ __forceinline__ void moments(float2 (&moment)[kRows], std::int64_t width, float epsilon,
                                        const Visit& visit, bool rms = false) {
  // The division comes first, so that it runs while the sums are formed.
  const float each = 1.0f / static_cast<float>(width);
  float sum[kRows] = {}, squares[kRows] = {};
  if (!rms) {
    visit([&](int r, float x) { sum[r] += x; });
    warp_sums(sum);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) moment[r].x = __fmul_rn(sum[r], each);
  visit([&](int r, float x) { squares[r] += (x - moment[r].x) * (x - moment[r].x); });
  warp_sums(squares);
#pragma unroll
  for (int r = 0; r < kRows; ++r) moment[r].y = rsqrtf(fmaf(squares[r], each, epsilon));
}

// Returns the first column of a lane's p-th vector.
template <class T>
__device__ __forceinline__ int vector_column(int p) {
  return (static_cast<int>(threadIdx.x) % kWarp + p * kWarp) * Vector16<T>::kSize;
}

// Normalizes kRows rows at once, of which each lane holds up to kVectors vectors. Calls put(row,
// column, values) for each vector of the results. Without kAny this is a layer norm with a shift.
// With kAny `shift` may be null, and `rms` chooses an RMS norm.
template <class T, int kVectors, int kRows, bool kAny = false, class Put>
__device__ __forceinline__ void norm_values(
    const float (&values)[kRows][kVectors][Vector16<T>::kSize], const float* gain,
    const float* shift, int width, float epsilon, const Put& put, bool rms = false) {
  constexpr int kSize = Vector16<T>::kSize;
  float2 moment[kRows];
  moments(
      moment, width, epsilon,
      [&](const auto& add) {
#pragma unroll
        for (int p = 0; p < kVectors; ++p) {
          if (vector_column<T>(p) >= width) break;
#pragma unroll
          for (int i = 0; i < kSize; ++i) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) add(r, values[r][p][i]);
          }
        }
      },
      kAny && rms);
#pragma unroll
  for (int p = 0; p < kVectors; ++p) {
    const int column = vector_column<T>(p);
    if (column >= width) break;
    const Floats<kSize> gains(gain + column),
        shifts = kAny && !shift ? Floats<kSize>() : Floats<kSize>(shift + column);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float exact[kSize];
#pragma unroll
      for (int i = 0; i < kSize; ++i)
        exact[i] =
            fmaf((values[r][p][i] - moment[r].x) * moment[r].y, gains.values[i], shifts.values[i]);
      put(r, column, exact);
    }
  }
}

// Loads x + bias + residual of one row, in up to kVectors vectors a lane. A term that is null is
// left out. X is T or float. Addresses are aligned to 16 bytes, those of low bits to 8.
template <class T, class X, int kVectors>
__device__ __forceinline__ void load_sum(float (&values)[kVectors][Vector16<T>::kSize], const X* x,
                                         const T* bias, const ResidualRow<const T>& residual,
                                         int width) {
#pragma unroll
  for (int p = 0; p < kVectors; ++p) {
    const int column = vector_column<T>(p);
    if (column >= width) break;
    if (x) {
      load_values(values[p], x + column);
    } else {
#pragma unroll
      for (int i = 0; i < Vector16<T>::kSize; ++i) values[p][i] = 0;
    }
    if (bias) add_vector<T>(values[p], load_vector(bias + column), {});
    if (residual.rounded)
      add_vector<T>(values[p], load_vector(residual.rounded + column),
                    sizeof(T) == 2 && residual.low_bits
                        ? *reinterpret_cast<const uint2*>(residual.low_bits + column)
                        : uint2{});
  }
}

// Computes out = norm(x + bias + residual) of one row. The row stays in registers, so out may be x
// or the residual.
template <class T, class X, int kVectors>
__device__ __forceinline__ void norm_vectors(const X* x, const T* bias,
                                             const ResidualRow<const T>& residual,
                                             const float* gain, const float* shift,
                                             const ResidualRow<T>& out, int width, float epsilon) {
  float values[1][kVectors][Vector16<T>::kSize];
  load_sum<T, X, kVectors>(values[0], x, bias, residual, width);
  norm_values<T, kVectors, 1>(values, gain, shift, width, epsilon,
                              [&](int, int column, const float(&results)[Vector16<T>::kSize]) {
                                store_values(out, column, results);
                              });
}

}  // namespace xlate::cuda
