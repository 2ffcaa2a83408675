// Layer norm of a row by a warp, in float32 (Ba, Kiros, Hinton 2016): one order of sums, for whatever kernel and wherever the row lies.
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// 16 bytes of a row.
template <class T>
struct alignas(16) Piece {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T values[kSize];
};

// So many floats from where they are aligned to 16 bytes; a single one from anywhere.
template <int kSize>
struct Floats {
  float values[kSize];
  __device__ explicit Floats(const float* from) {
    if constexpr (kSize == 1) {
      values[0] = *from;
    } else {
#pragma unroll
      for (int i = 0; i < kSize; i += 4) *reinterpret_cast<float4*>(values + i) = *reinterpret_cast<const float4*>(from + i);
    }
  }
};

// Mean and 1/deviation of a row of which each lane passes its elements to `visit(add)`, twice.
template <class Visit>
__device__ float2 moments(std::int64_t width, float epsilon, const Visit& visit) {
  const float each = 1.0f / static_cast<float>(width);  // while the sum is formed
  float sum = 0;
  visit([&](float x) { sum += x; });
  const float mean = warp_sum(sum) * each;
  float squares = 0;
  visit([&](float x) { squares += (x - mean) * (x - mean); });
  return {mean, rsqrtf(fmaf(warp_sum(squares), each, epsilon))};
}

// out = norm of x + added (or of x, where that is null), which stays in registers: up to kPieces pieces a lane. All is aligned to 16 bytes.
template <class T, int kPieces>
__device__ __forceinline__ void norm_pieces(const T* x, const T* added, const float* gain, const float* shift, T* out, int width, float epsilon) {
  constexpr int kSize = Piece<T>::kSize;
  const int first = threadIdx.x % kWarp * kSize;
  float values[kPieces][kSize];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = first + p * kWarp * kSize;
    if (column >= width) break;
    const auto own = *reinterpret_cast<const Piece<T>*>(x + column);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[p][i] = to_float(own.values[i]);
    if (!added) continue;
    const auto more = *reinterpret_cast<const Piece<T>*>(added + column);
#pragma unroll
    for (int i = 0; i < kSize; ++i) values[p][i] += to_float(more.values[i]);
  }
  const float2 moment = moments(width, epsilon, [&](const auto& add) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (first + p * kWarp * kSize >= width) break;
#pragma unroll
      for (int i = 0; i < kSize; ++i) add(values[p][i]);
    }
  });
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = first + p * kWarp * kSize;
    if (column >= width) break;
    Piece<T> result;
    const Floats<kSize> gains(gain + column), shifts(shift + column);
#pragma unroll
    for (int i = 0; i < kSize; ++i) result.values[i] = from_float<T>(fmaf((values[p][i] - moment.x) * moment.y, gains.values[i], shifts.values[i]));
    *reinterpret_cast<Piece<T>*>(out + column) = result;
  }
}

}  // namespace xlate::cuda
