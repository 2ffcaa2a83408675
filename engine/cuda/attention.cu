// Attention, a warp per (row, head): keys in blocks of 32, one a lane, with an online softmax (Milakov and Gimelshein 2018) in float32,
// so that any length takes the same registers and each row is summed in one order wherever it lies. Values are read coalesced, a lane
// per column. Beams of a sentence share a thread block, and so the cache lines of what they share.
#include "engine/cuda/device.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kMaxColumns = 8;  // columns of a head a lane holds: heads of up to 256
constexpr int kWarpsPerBlock = 4;

template <class T>
__device__ float dot(const T* a, const T* b, int width) {
  float sum = 0;
  if constexpr (sizeof(T) == 2) {
    // Models' rows are aligned; views with other strides are read element by element, in the same order.
    if (width % 8 == 0 && (reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b)) % 16 == 0) {
      for (int i = 0; i < width; i += 8) {
        const uint4 x = *reinterpret_cast<const uint4*>(a + i), y = *reinterpret_cast<const uint4*>(b + i);
        const T *p = reinterpret_cast<const T*>(&x), *q = reinterpret_cast<const T*>(&y);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum = fmaf(to_float(p[j]), to_float(q[j]), sum);
      }
      return sum;
    }
  }
  for (int i = 0; i < width; ++i) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
  return sum;
}

// key_of(t) gives the key's first element of this head; its value is `value_offset` behind.
template <class T, int kColumns, class KeyOf>
__device__ void attend(const T* query, std::int64_t n, int width, std::int64_t value_offset, const KeyOf& key_of, T* out) {
  const int lane = threadIdx.x % kWarp;
  const float scale = rsqrtf(static_cast<float>(width));
  float max = -INFINITY, sum = 0, acc[kColumns] = {};
  for (std::int64_t first = 0; first < n; first += kWarp) {
    const std::int64_t t = first + lane;
    const T* key = t < n ? key_of(t) : nullptr;
    const float score = key ? dot(query, key, width) * scale : -INFINITY;
    const float largest = fmaxf(max, warp_max(score));
    const float correction = __expf(max - largest), share = __expf(score - largest);
    sum = sum * correction + warp_sum(share);
    max = largest;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) acc[c] *= correction;
    const int count = static_cast<int>(n - first < kWarp ? n - first : kWarp);
    for (int j = 0; j < count; ++j) {
      const float p = __shfl_sync(kAllLanes, share, j);
      const T* value = reinterpret_cast<const T*>(__shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(key), j)) + value_offset;
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

template <class T, int kColumns>
__global__ void packed_kernel(AttendArgs<T> args, const std::int32_t* offsets, std::int64_t sentences, std::int64_t rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  if (row >= rows) return;
  std::int64_t low = 0, high = sentences;  // the sentence that holds the row
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (offsets[middle] <= row ? low : high) = middle;
  }
  const std::int64_t first = offsets[low], n = offsets[low + 1] - first;
  const T* keys = args.query + first * args.query_stride + args.width + head * width;
  attend<T, kColumns>(args.query + row * args.query_stride + head * width, n, width, args.width,
                      [&](std::int64_t t) { return keys + t * args.query_stride; }, args.out + row * args.out_stride + head * width);
}

template <class T, int kColumns>
__global__ void self_kernel(AttendArgs<T> args, CacheView cache, SearchState state, StepRows rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows.groups * rows.beams) return;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads), lane = threadIdx.x % kWarp;
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0 || state.done[slot]) return;  // a sentence that is done may have taken all its pages
  const int beam = static_cast<int>(row % rows.beams);
  const std::int64_t length = state.length[slot];
  const T* own = args.query + row * args.query_stride + args.width + head * width;
  T* pages = static_cast<T*>(cache.pages) + head * width;
  // The new key and value go to the cache; this row takes them from where they are, and no other row needs them in this step.
  T* place = pages + cache_row(cache, slot, length, beam) * 2 * args.width;
  for (int i = lane; i < width; i += kWarp) {
    place[i] = own[i];
    place[args.width + i] = own[args.width + i];
  }
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * rows.beams + beam;
  const auto key_of = [&](std::int64_t t) -> const T* {
    return t == length ? own : pages + cache_row(cache, slot, t, ancestor[t * rows.beams]) * 2 * args.width;
  };
  attend<T, kColumns>(args.query + row * args.query_stride + head * width, length + 1, width, args.width, key_of,
                      args.out + row * args.out_stride + head * width);
}

template <class T, int kColumns>
__global__ void cross_kernel(AttendArgs<T> args, CacheView cache, const std::int32_t* source_lengths, StepRows rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows.groups * rows.beams) return;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0) return;
  const T* pages = static_cast<const T*>(cache.pages) + head * width;
  attend<T, kColumns>(args.query + row * args.query_stride + head * width, source_lengths[slot], width, args.width,
                      [&](std::int64_t t) { return pages + cache_row(cache, slot, t, 0) * 2 * args.width; },
                      args.out + row * args.out_stride + head * width);
}

template <class T>
__global__ void store_kernel(const T* keys_values, std::int64_t stride, std::int64_t width, const std::int32_t* token_slots,
                             const std::int32_t* positions, CacheView cache) {
  const std::int64_t row = blockIdx.x;
  T* place = static_cast<T*>(cache.pages) + cache_row(cache, token_slots[row], positions[row], 0) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) place[i] = keys_values[row * stride + i];
}

// Calls launch with the number of columns a lane holds, as a constant.
template <class Launch>
void with_columns(std::int64_t head_width, const Launch& launch) {
  if (head_width <= kWarp) launch(std::integral_constant<int, 1>());
  else if (head_width <= 2 * kWarp) launch(std::integral_constant<int, 2>());
  else if (head_width <= 4 * kWarp) launch(std::integral_constant<int, 4>());
  else launch(std::integral_constant<int, kMaxColumns>());
}

dim3 grid_of(std::int64_t rows, int heads) { return dim3(static_cast<unsigned>((rows + kWarpsPerBlock - 1) / kWarpsPerBlock), static_cast<unsigned>(heads)); }

}  // namespace

template <class T>
void attend_packed(const AttendArgs<T>& args, const std::int32_t* offsets, std::int64_t sentences, std::int64_t rows, cudaStream_t stream) {
  if (rows == 0) return;
  with_columns(args.width / args.heads, [&](auto columns) {
    packed_kernel<T, columns><<<grid_of(rows, args.heads), kWarpsPerBlock * kWarp, 0, stream>>>(args, offsets, sentences, rows);
  });
}

template <class T>
void attend_self(const AttendArgs<T>& args, const CacheView& cache, const SearchState& state, const StepRows& rows, cudaStream_t stream) {
  with_columns(args.width / args.heads, [&](auto columns) {
    self_kernel<T, columns><<<grid_of(rows.rows(), args.heads), kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, state, rows);
  });
}

template <class T>
void attend_cross(const AttendArgs<T>& args, const CacheView& cache, const std::int32_t* source_lengths, const StepRows& rows, cudaStream_t stream) {
  with_columns(args.width / args.heads, [&](auto columns) {
    cross_kernel<T, columns><<<grid_of(rows.rows(), args.heads), kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, source_lengths, rows);
  });
}

template <class T>
void store_cross(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width, const std::int32_t* token_slots,
                 const std::int32_t* positions, const CacheView& cache, cudaStream_t stream) {
  if (rows > 0) store_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(keys_values, stride, width, token_slots, positions, cache);
}

#define INSTANTIATE(T)                                                                                                              \
  template void attend_packed<T>(const AttendArgs<T>&, const std::int32_t*, std::int64_t, std::int64_t, cudaStream_t);              \
  template void attend_self<T>(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&, cudaStream_t);          \
  template void attend_cross<T>(const AttendArgs<T>&, const CacheView&, const std::int32_t*, const StepRows&, cudaStream_t);        \
  template void store_cross<T>(const T*, std::int64_t, std::int64_t, std::int64_t, const std::int32_t*, const std::int32_t*, const CacheView&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
