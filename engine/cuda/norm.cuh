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

// Means and 1/deviations of kRows rows of which each lane passes its elements to `visit(add)`, twice, as add(row, element).
template <int kRows, class Visit>
__device__ __forceinline__ void moments(float2 (&moment)[kRows], std::int64_t width, float epsilon, const Visit& visit) {
  const float each = 1.0f / static_cast<float>(width);  // while the sum is formed
  float sum[kRows] = {}, squares[kRows] = {};
  visit([&](int r, float x) { sum[r] += x; });
  warp_sums(sum);
#pragma unroll
  for (int r = 0; r < kRows; ++r) moment[r].x = sum[r] * each;
  visit([&](int r, float x) { squares[r] += (x - moment[r].x) * (x - moment[r].x); });
  warp_sums(squares);
#pragma unroll
  for (int r = 0; r < kRows; ++r) moment[r].y = rsqrtf(fmaf(squares[r], each, epsilon));
}

// The column of a lane's p-th piece.
template <class T>
__device__ __forceinline__ int piece_column(int p) { return (static_cast<int>(threadIdx.x) % kWarp + p * kWarp) * Piece<T>::kSize; }

// A piece is read as a whole: the compiler reads a struct element by element where it only sees a reference to it.
template <class T>
__device__ __forceinline__ uint4 load_piece(const T* from) { return *reinterpret_cast<const uint4*>(from); }
// values (+)= those of a piece.
template <class T>
__device__ __forceinline__ void set_piece(float (&values)[Piece<T>::kSize], uint4 piece) {
  const auto typed = *reinterpret_cast<const Piece<T>*>(&piece);
#pragma unroll
  for (int i = 0; i < Piece<T>::kSize; ++i) values[i] = to_float(typed.values[i]);
}
template <class T>
__device__ __forceinline__ void add_piece(float (&values)[Piece<T>::kSize], uint4 piece) {
  const auto typed = *reinterpret_cast<const Piece<T>*>(&piece);
#pragma unroll
  for (int i = 0; i < Piece<T>::kSize; ++i) values[i] += to_float(typed.values[i]);
}

// Norms of kRows rows at once, up to kPieces pieces a lane: put(row, column, piece) takes the results.
template <class T, int kPieces, int kRows, class Put>
__device__ __forceinline__ void norm_values(const float (&values)[kRows][kPieces][Piece<T>::kSize], const float* gain, const float* shift, int width, float epsilon, const Put& put) {
  constexpr int kSize = Piece<T>::kSize;
  float2 moment[kRows];
  moments(moment, width, epsilon, [&](const auto& add) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (piece_column<T>(p) >= width) break;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) add(r, values[r][p][i]);
      }
    }
  });
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = piece_column<T>(p);
    if (column >= width) break;
    const Floats<kSize> gains(gain + column), shifts(shift + column);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Piece<T> result;
#pragma unroll
      for (int i = 0; i < kSize; ++i) result.values[i] = from_float<T>(fmaf((values[r][p][i] - moment[r].x) * moment[r].y, gains.values[i], shifts.values[i]));
      put(r, column, *reinterpret_cast<const uint4*>(&result));
    }
  }
}

// out = norm of x + added (or of x, where that is null), which stays in registers: up to kPieces pieces a lane. All is aligned to 16 bytes.
template <class T, int kPieces>
__device__ __forceinline__ void norm_pieces(const T* x, const T* added, const float* gain, const float* shift, T* out, int width, float epsilon) {
  float values[1][kPieces][Piece<T>::kSize];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = piece_column<T>(p);
    if (column >= width) break;
    set_piece<T>(values[0][p], load_piece(x + column));
    if (added) add_piece<T>(values[0][p], load_piece(added + column));
  }
  norm_values<T, kPieces, 1>(values, gain, shift, width, epsilon, [&](int, int column, uint4 piece) { *reinterpret_cast<uint4*>(out + column) = piece; });
}

}  // namespace xlate::cuda
