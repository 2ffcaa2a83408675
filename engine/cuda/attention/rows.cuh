// Attention for every type and for heads of up to 256 columns. A warp computes one row for one
// head. It processes 32 keys at a time, one in each lane, with an online softmax (Milakov and
// Gimelshein 2018) in float32. Therefore every length takes the same registers, and each row is
// summed in one order wherever it lies. Loads of values are coalesced, because consecutive lanes
// have consecutive columns. This file serves what tile.cuh cannot: float32, heads of other widths,
// and rows that are not aligned.
#pragma once

#include <cstdint>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/head_bias.cuh"
#include "engine/cuda/device.cuh"

namespace xlate::cuda {

// The largest number of columns of a head that a lane holds, which allows heads of up to 256.
constexpr int kMaxColumns = 8;

// Returns the inner product of a and b.
template <class T>
__device__ float dot(const T* a, const T* b, int width) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  float sum = 0;
  // The rows of models are aligned. Views with other strides are read element by element and summed
  // in the same order.
  if (width % kVector == 0 &&
      (reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b)) % 16 == 0) {
    for (int i = 0; i < width; i += kVector) {
      const uint4 x = *reinterpret_cast<const uint4*>(a + i),
                  y = *reinterpret_cast<const uint4*>(b + i);
      const T *p = reinterpret_cast<const T*>(&x), *q = reinterpret_cast<const T*>(&y);
#pragma unroll
      for (int j = 0; j < kVector; ++j) sum = fmaf(to_float(p[j]), to_float(q[j]), sum);
    }
    return sum;
  }
  for (int i = 0; i < width; ++i) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
  return sum;
}

// Computes the attention of one query over n >= 1 keys and writes `width` elements to `out`.
// key_of(t) points to the first element of key t in this head, and its value lies `value_offset`
// elements behind. score_of(product, t) returns the score of key t.
template <class T, int kColumns, class ScoreOf, class KeyOf>
__device__ void attend(const T* query, std::int64_t n, int width, std::int64_t value_offset,
                       const ScoreOf& score_of, const KeyOf& key_of, T* out) {
  const int lane = threadIdx.x % kWarp;
  float max = -INFINITY, sum = 0, acc[kColumns] = {};
  for (std::int64_t first = 0; first < n; first += kWarp) {
    const std::int64_t t = first + lane;
    const T* key = t < n ? key_of(t) : nullptr;
    const float score = key ? score_of(dot(query, key, width), t) : -INFINITY;
    const float largest = fmaxf(max, warp_max(score));
    const float correction = __expf(max - largest), weight = __expf(score - largest);
    sum = sum * correction + warp_sum(weight);
    max = largest;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) acc[c] *= correction;
    const int count = static_cast<int>(n - first < kWarp ? n - first : kWarp);
    for (int j = 0; j < count; ++j) {
      const float p = __shfl_sync(kAllLanes, weight, j);
      const T* value = reinterpret_cast<const T*>(
                           __shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(key), j)) +
                       value_offset;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = lane + c * kWarp;
        if (column < width) acc[c] = fmaf(p, to_float(value[column]), acc[c]);
      }
    }
  }
  const float inverse = 1.0f / sum;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int column = lane + c * kWarp;
    if (column < width) out[column] = from_float<T>(acc[c] * inverse);
  }
}

// Returns the scores of plain attention, whose query stands at `position` among the keys.
template <class T>
__device__ auto plain_scores(const AttendArgs<T>& args, int head, std::int64_t position) {
  return [scale = args.scale, bias = HeadBias(args, head), position](
             float product, std::int64_t t) { return fmaf(product, scale, bias.of(t - position)); };
}

// Returns the first position that a query at `position` sees.
template <class T>
__device__ std::int64_t first_seen(const AttendArgs<T>& args, std::int64_t position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
}

// Returns the last sentence b of [0, sentences) for which start(b) <= wanted. start() must not
// decrease, and start(0) <= wanted must hold.
template <class Start>
__device__ std::int64_t find_sentence(std::int64_t sentences, std::int64_t wanted,
                                      const Start& start) {
  std::int64_t low = 0, high = sentences;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (start(middle) <= wanted ? low : high) = middle;
  }
  return low;
}

// Calls launch with the number of columns that a lane holds, as a constant.
template <class Launch>
void with_columns(std::int64_t head_width, const Launch& launch) {
  if (head_width <= kWarp)
    launch(std::integral_constant<int, 1>());
  else if (head_width <= 2 * kWarp)
    launch(std::integral_constant<int, 2>());
  else if (head_width <= 4 * kWarp)
    launch(std::integral_constant<int, 4>());
  else
    launch(std::integral_constant<int, kMaxColumns>());
}

}  // namespace xlate::cuda
