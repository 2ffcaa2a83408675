// The general kernels of attention in a decoding step, for every type and for heads of up to 256
// columns: a warp computes one row for one head (rows.cuh). A block has four consecutive rows. With
// several beams most of these belong to one sentence, and the keys that they share are found in the
// L1 cache. The file also has the kernel that stores keys and values of a source or a prompt.
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/rows.cuh"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

template <class T, int kColumns>
__global__ void self_row_kernel(AttendArgs<T> args, CacheView cache, SearchState state,
                                StepRows rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows.groups * rows.beams) return;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads),
            lane = threadIdx.x % kWarp;
  const std::int64_t slot = rows.slots[row / rows.beams];
  // The pages of a sentence that is done may have no place for another token.
  if (slot < 0 || state.done[slot]) return;
  const int beam = static_cast<int>(row % rows.beams);
  const std::int64_t length = state.length[slot];
  const T* own = args.query + row * args.query_stride + args.width + head * width;
  T* pages = static_cast<T*>(cache.pages) + head * width;
  // The new key and value are copied to the cache. This row reads them from where the product left
  // them, and no other row needs them in this step.
  T* place = pages + cache_row(cache, slot, length, beam) * 2 * args.width;
  for (int i = lane; i < width; i += kWarp) {
    place[i] = own[i];
    place[args.width + i] = own[args.width + i];
  }
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * rows.beams + beam;
  const auto key_of = [&](std::int64_t t) -> const T* {
    return t == length
               ? own
               : pages + cache_row(cache, slot, t, ancestor[t * rows.beams]) * 2 * args.width;
  };
  attend<T, kColumns>(args.query + row * args.query_stride + head * width, length + 1, width,
                      args.width, plain_scores(args, head, length), key_of,
                      args.out + row * args.out_stride + head * width);
}

// Computes all that AttendArgs can ask for, and attends to the keys of a prompt before the own
// ones.
template <class T, int kColumns>
__global__ void any_self_row_kernel(AttendArgs<T> args, CacheView cache, SharedKeys shared,
                                    SearchState state, StepRows rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows.groups * rows.beams) return;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads),
            lane = threadIdx.x % kWarp, first_column = head / args.group * width;
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0 || state.done[slot]) return;
  const int beam = static_cast<int>(row % rows.beams);
  const std::int64_t length = state.length[slot],
                     before = shared.lengths ? shared.lengths[slot] : 0, position = before + length,
                     first = first_seen(args, position), row_size = 2 * args.key_width;
  const T* own = args.query + row * args.query_stride + args.width + first_column;
  T* pages = static_cast<T*>(cache.pages) + first_column;
  const T* shared_pages = static_cast<const T*>(shared.cache.pages) + first_column;
  // One of the heads of queries that share the new key copies it to the cache. All of them read it
  // from where the product left it.
  if (head % args.group == 0) {
    T* place = pages + cache_row(cache, slot, length, beam) * row_size;
    for (int i = lane; i < width; i += kWarp) {
      place[i] = own[i];
      place[args.key_width + i] = own[args.key_width + i];
    }
  }
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * rows.beams + beam;
  const auto key_of = [&](std::int64_t i) -> const T* {
    const std::int64_t t = first + i - before;
    if (t < 0) return shared_pages + cache_row(shared.cache, slot, first + i, 0) * row_size;
    return t == length ? own
                       : pages + cache_row(cache, slot, t, ancestor[t * rows.beams]) * row_size;
  };
  const HeadScores scores(args, head, position);
  attend<T, kColumns>(
      args.query + row * args.query_stride + head * width, position + 1 - first, width,
      args.key_width, [&](float product, std::int64_t i) { return scores.of(product, first + i); },
      key_of, args.out + row * args.out_stride + head * width);
}

template <class T, int kColumns>
__global__ void cross_row_kernel(AttendArgs<T> args, CacheView cache,
                                 const std::int32_t* source_lengths, StepRows rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows.groups * rows.beams) return;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  const std::int64_t slot = rows.slots[row / rows.beams];
  if (slot < 0) return;
  const T* pages = static_cast<const T*>(cache.pages) + head * width;
  attend<T, kColumns>(
      args.query + row * args.query_stride + head * width, source_lengths[slot], width, args.width,
      plain_scores(args, head, 0),
      [&](std::int64_t t) { return pages + cache_row(cache, slot, t, 0) * 2 * args.width; },
      args.out + row * args.out_stride + head * width);
}

// A block copies one token's key and value in units of the type Vector16, which is not the one of
// norms/vectors.cuh. A unit is 16 bytes where the alignment of the rows allows it, and else one
// element. The stride and the width are counted in units.
template <class Vector16>
__global__ void store_kernel(const Vector16* keys_values, std::int64_t stride, std::int64_t width,
                             const std::int32_t* token_slots, const std::int32_t* positions,
                             CacheView cache) {
  const std::int64_t row = blockIdx.x;
  Vector16* place = static_cast<Vector16*>(cache.pages) +
                    cache_row(cache, token_slots[row], positions[row], 0) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x)
    place[i] = keys_values[row * stride + i];
}

}  // namespace

template <class T>
void attend_self_rows(const AttendArgs<T>& args, const CacheView& cache, const SharedKeys& shared,
                      const SearchState& state, const StepRows& rows, cudaStream_t stream) {
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows.rows(), kWarpsPerBlock), static_cast<unsigned>(args.heads));
    if (plain(args) && !shared.lengths) {
      self_row_kernel<T, columns>
          <<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, state, rows);
    } else {
      any_self_row_kernel<T, columns>
          <<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, shared, state, rows);
    }
  });
}

template <class T>
void attend_cross_rows(const AttendArgs<T>& args, const CacheView& cache,
                       const std::int32_t* source_lengths, const StepRows& rows,
                       cudaStream_t stream) {
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows.rows(), kWarpsPerBlock), static_cast<unsigned>(args.heads));
    cross_row_kernel<T, columns>
        <<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, source_lengths, rows);
  });
}

template <class T>
void store_keys(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width,
                const std::int32_t* token_slots, const std::int32_t* positions,
                const CacheView& cache, cudaStream_t stream) {
  if (rows == 0) return;
  constexpr std::int64_t kVector = 16 / static_cast<std::int64_t>(sizeof(T));
  const auto address =
      reinterpret_cast<std::uintptr_t>(keys_values) | reinterpret_cast<std::uintptr_t>(cache.pages);
  if (address % 16 == 0 && width % kVector == 0 && stride % kVector == 0) {
    store_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(
        reinterpret_cast<const uint4*>(keys_values), stride / kVector, width / kVector, token_slots,
        positions, cache);
  } else {
    store_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(keys_values, stride, width,
                                                                  token_slots, positions, cache);
  }
}

#define INSTANTIATE(T)                                                                            \
  template void attend_self_rows<T>(const AttendArgs<T>&, const CacheView&, const SharedKeys&,    \
                                    const SearchState&, const StepRows&, cudaStream_t);           \
  template void attend_cross_rows<T>(const AttendArgs<T>&, const CacheView&, const std::int32_t*, \
                                     const StepRows&, cudaStream_t);                              \
  template void store_keys<T>(const T*, std::int64_t, std::int64_t, std::int64_t,                 \
                              const std::int32_t*, const std::int32_t*, const CacheView&,         \
                              cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
