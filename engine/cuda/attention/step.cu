// Attention of a decoding step over the paged caches: the choice of a kernel, and the kernel on
// tensor cores for devices and shapes that stream.cu does not serve. In that kernel a warp computes
// a beam tile for one head and reads each key once for all its beams (beam_tile.cuh). What tensor
// cores cannot compute goes to rows.cu.
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/beam_tile.cuh"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

// Adds the first `count` of 32 keys, whose entries are spread over the lanes. The row of every lane
// must be readable, also from `count` on. A row of the cache has `row_size` elements.
// scores(beam_mask) makes the scores of a tile's keys (beam_tile.cuh).
template <class T, int kHead, class ScoresOf>
__device__ void add_keys(BeamTile<T, kHead>& tile, const T* base, std::int64_t row_size,
                         KeyEntry entry, int count, const ScoresOf& scores) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  for (int first = 0; first < count; first += kTileKeys) {
    const auto row_of = [&](int i) {
      return base + __shfl_sync(kAllLanes, entry.row, first + i) * row_size;
    };
    const T* const key[2] = {row_of(g), row_of(g + 8)};
    const unsigned beam_mask[2] = {__shfl_sync(kAllLanes, entry.beam_mask, first + g),
                                   __shfl_sync(kAllLanes, entry.beam_mask, first + g + 8)};
    const std::int64_t half = row_size / 2;
    const T* const value[4] = {row_of(2 * t) + half, row_of(2 * t + 1) + half,
                               row_of(2 * t + 8) + half, row_of(2 * t + 9) + half};
    tile.add(key, beam_mask, value, scores(beam_mask));
  }
}

// Copies the new keys and values of this warp's beams and head to the cache. `own` is the key of
// the first beam, `stride` the distance between beams, and `row` the cache row of the first beam;
// the rows of the other beams follow.
template <class T, int kHead>
__device__ void store_new_keys(const T* own, std::int64_t stride, std::int64_t width, T* pages,
                               std::int64_t row, int beams) {
  constexpr int kVectors = kHead / 8;
  for (int i = threadIdx.x % kWarp; i < beams * 2 * kVectors; i += kWarp) {
    const int beam = i / (2 * kVectors), which = i / kVectors % 2, vector = i % kVectors;
    *reinterpret_cast<uint4*>(pages + (row + beam) * 2 * width + which * width + vector * 8) =
        *reinterpret_cast<const uint4*>(own + beam * stride + which * width + vector * 8);
  }
}

// A warp computes one beam tile for one head.
template <class T, int kHead, bool kSelf, bool kUsual>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp)
    step_tile_kernel(AttendArgs<T> args, T* cache, StepRows rows, KeyLists lists) {
  const TileWarp warp(args.heads, rows);
  if (warp.group >= rows.groups) return;
  const int lane = threadIdx.x % kWarp, g = lane / 4;
  const int2 head = lists.headers[warp.beam_tile];
  const KeyEntry* list = lists.entries + warp.beam_tile * lists.stride;
  // The first entries are loaded together with the header, not after it. This is safe for short
  // lists too, because the stride is at least 32.
  KeyEntry entry = list[lane];
  const std::int64_t first_row = warp.group * rows.beams + warp.first_beam;
  const T* query = args.query + first_row * args.query_stride + warp.head * kHead;
  T* pages = cache + warp.head * kHead;
  if (head.x == 0) return;
  if (kSelf) {
    store_new_keys<T, kHead>(query + args.width, args.query_stride, args.width, pages, head.y,
                             warp.beams);
    __syncwarp();
  }
  BeamTile<T, kHead> tile;
  tile.begin(g < warp.beams ? query + g * args.query_stride : nullptr);
  const HeadBias bias(args, warp.head);
  for (int first = 0; first < head.x; first += kWarp) {
    const KeyEntry next = first + kWarp + lane < head.x ? list[first + kWarp + lane] : KeyEntry{};
    const int any = __shfl_sync(kAllLanes, entry.row, 0);
    // Lanes behind the list's end get a row that is readable and to which no beam attends.
    if (first + lane >= head.x) entry = {any, 0};
    add_keys(tile, pages, 2 * args.width, entry, min(kWarp, head.x - first),
             [&](const unsigned(&beam_mask)[2]) {
               return scores_of<kUsual, kHead>(args.scale, bias, beam_mask);
             });
    entry = next;
  }
  tile.end(args.out + first_row * args.out_stride + warp.head * kHead, args.out_stride, warp.beams);
}

// Launches the streaming kernel or the one above and returns which, or launches nothing and returns
// kRowByRow.
template <class T, bool kSelf>
AttentionKernel attend_tiles(const AttendArgs<T>& args, const CacheView& cache,
                             const StepRows& rows, const KeyLists& lists, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (kSelf ? stream_self(args, cache, rows, lists, stream)
              : stream_cross(args, cache, rows, lists, stream))
      return AttentionKernel::kStream;
    if (!step_attention_fits<T, kSelf>(args)) return AttentionKernel::kRowByRow;
    with_head(args.width / args.heads, [&](auto head) {
      with_scores(args, [&](auto usual) {
        const unsigned blocks =
            blocks_for(key_list_count(rows.groups, rows.beams) * args.heads, kWarpsPerBlock);
        step_tile_kernel<T, head, kSelf, usual><<<blocks, kWarpsPerBlock * kWarp, 0, stream>>>(
            args, static_cast<T*>(cache.pages), rows, lists);
      });
    });
    return AttentionKernel::kTiles;
  }
  return AttentionKernel::kRowByRow;
}

}  // namespace

template <class T>
AttentionKernel attend_self(const AttendArgs<T>& args, const CacheView& cache,
                            const SearchState& state, const StepRows& rows, const KeyLists& lists,
                            cudaStream_t stream) {
  const AttentionKernel kernel = attend_tiles<T, true>(args, cache, rows, lists, stream);
  if (kernel == AttentionKernel::kRowByRow) attend_self_rows(args, cache, {}, state, rows, stream);
  return kernel;
}

template <class T>
AttentionKernel attend_cross(const AttendArgs<T>& args, const CacheView& cache,
                             const std::int32_t* source_lengths, const StepRows& rows,
                             const KeyLists& lists, cudaStream_t stream) {
  const AttentionKernel kernel = attend_tiles<T, false>(args, cache, rows, lists, stream);
  if (kernel == AttentionKernel::kRowByRow)
    attend_cross_rows(args, cache, source_lengths, rows, stream);
  return kernel;
}

#define INSTANTIATE(T)                                                                            \
  template AttentionKernel attend_self<T>(const AttendArgs<T>&, const CacheView&,                 \
                                          const SearchState&, const StepRows&, const KeyLists&,   \
                                          cudaStream_t);                                          \
  template AttentionKernel attend_cross<T>(const AttendArgs<T>&, const CacheView&,                \
                                           const std::int32_t*, const StepRows&, const KeyLists&, \
                                           cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
