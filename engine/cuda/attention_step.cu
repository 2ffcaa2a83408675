// Attention of a decoding step over the paged caches. On tensor cores a warp takes up to 8 beams of a sentence and one head: what the
// beams share is read once for all of them (attention_tile.cuh). Elsewhere a warp takes one row and one head (attention_rows.cuh), and
// the rows of a sentence share a block and so the cache lines. Float32 sums.
#include "engine/cuda/attention_rows.cuh"
#include "engine/cuda/attention_tile.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kTileBeams = 8;  // rows of a warp

// Which rows and head a warp has.
struct TileWarp {
  std::int64_t group;
  int head, first_beam, beams;  // beams [first_beam, first_beam + beams) of the group's sentence
  __device__ TileWarp(int heads, const StepRows& rows) {
    const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
    const int all = static_cast<int>(rows.beams), parts = (all + kTileBeams - 1) / kTileBeams;
    head = static_cast<int>(warp % heads);
    first_beam = static_cast<int>(warp / heads % parts) * kTileBeams;
    beams = min(kTileBeams, all - first_beam);
    group = warp / heads / parts;
  }
};

std::int64_t tile_warps(int heads, const StepRows& rows) { return rows.groups * ((rows.beams + kTileBeams - 1) / kTileBeams) * heads; }

// The first position at which the hypotheses' histories differ: once on one line, they were so at all positions before.
__device__ int common_history(const std::uint8_t* ancestor, int beams_stride, int beams, int length) {
  if (beams == 1) return length + 1;
  for (int first = 0; first < length; first += kWarp) {
    const int t = first + threadIdx.x % kWarp;
    bool same = t < length;
    if (same) {
      const std::uint8_t* lines = ancestor + static_cast<std::int64_t>(t) * beams_stride;
      for (int k = 1; k < beams; ++k) same &= lines[k] == lines[0];
    }
    const unsigned all = __ballot_sync(kAllLanes, same);
    if (all != kAllLanes) return first + __ffs(static_cast<int>(~all)) - 1;
  }
  return length;
}

// The new keys and values of this warp's beams and head go to position `length`, each beam's on its own line.
template <class T, int kHead>
__device__ void store_own(const T* own, std::int64_t stride, std::int64_t width, T* pages, std::int64_t row, int beams) {
  constexpr int kPieces = kHead / 8;
  for (int i = threadIdx.x % kWarp; i < beams * 2 * kPieces; i += kWarp) {
    const int beam = i / (2 * kPieces), which = i / kPieces % 2, piece = i % kPieces;
    *reinterpret_cast<uint4*>(pages + (row + beam) * 2 * width + which * width + piece * 8) =
        *reinterpret_cast<const uint4*>(own + beam * stride + which * width + piece * 8);
  }
}

template <class T, int kHead>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp) self_tile_kernel(AttendArgs<T> args, CacheView cache, SearchState state, StepRows rows) {
  const TileWarp warp(args.heads, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t slot = rows.slots[warp.group];
  if (slot < 0 || state.done[slot]) return;  // a sentence that is done may have taken all its pages
  const int length = state.length[slot], lane = threadIdx.x % kWarp, g = lane / 4;
  const std::int64_t first_row = warp.group * rows.beams + warp.first_beam;
  const T* query = args.query + first_row * args.query_stride + warp.head * kHead;
  T* pages = static_cast<T*>(cache.pages) + warp.head * kHead;
  store_own<T, kHead>(query + args.width, args.query_stride, args.width, pages, cache_row(cache, slot, length, warp.first_beam), warp.beams);
  __syncwarp();

  const int stride = static_cast<int>(rows.beams);
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * stride + warp.first_beam;
  const int common = common_history(ancestor, stride, warp.beams, length);
  const int entries = common + (length + 1 - common) * warp.beams;
  const unsigned row_units = static_cast<unsigned>(args.width / 4);  // a key and its value, in 16 bytes
  TileAttention<T, kHead, false> tile;
  tile.begin(g < warp.beams ? query + g * args.query_stride : nullptr, nullptr);
  for (int first = 0; first < entries; first += kWarp) {
    const int i = first + lane;
    TileEntry entry{static_cast<unsigned>(cache_row(cache, slot, length, warp.first_beam)) * row_units, TileEntry::kNobody};
    if (i < entries) {
      const int beam = i < common ? 0 : (i - common) % warp.beams, t = i < common ? i : common + (i - common) / warp.beams;
      const int line = t == length ? warp.first_beam + beam : ancestor[static_cast<std::int64_t>(t) * stride + beam];
      entry = {static_cast<unsigned>(cache_row(cache, slot, t, line)) * row_units, i < common ? TileEntry::kAll : beam};
    }
    add_entries(tile, pages, args.width, entry, min(kWarp, entries - first));
  }
  tile.end(g < warp.beams ? args.out + (first_row + g) * args.out_stride + warp.head * kHead : nullptr, nullptr);
}

template <class T, int kHead>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp) cross_tile_kernel(AttendArgs<T> args, CacheView cache, const std::int32_t* source_lengths, StepRows rows) {
  const TileWarp warp(args.heads, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t slot = rows.slots[warp.group];
  if (slot < 0) return;
  const int n = source_lengths[slot], lane = threadIdx.x % kWarp, g = lane / 4;
  const std::int64_t first_row = warp.group * rows.beams + warp.first_beam;
  const T* pages = static_cast<const T*>(cache.pages) + warp.head * kHead;
  const unsigned row_units = static_cast<unsigned>(args.width / 4);
  TileAttention<T, kHead, false> tile;
  tile.begin(g < warp.beams ? args.query + (first_row + g) * args.query_stride + warp.head * kHead : nullptr, nullptr);
  for (int first = 0; first < n; first += kWarp) {
    const int t = first + lane;
    const unsigned place = static_cast<unsigned>(cache_row(cache, slot, min(t, n - 1), 0)) * row_units;
    add_entries(tile, pages, args.width, {place, t < n ? TileEntry::kAll : TileEntry::kNobody}, min(kWarp, n - first));
  }
  tile.end(g < warp.beams ? args.out + (first_row + g) * args.out_stride + warp.head * kHead : nullptr, nullptr);
}

template <class T, int kColumns>
__global__ void self_row_kernel(AttendArgs<T> args, CacheView cache, SearchState state, StepRows rows) {
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
__global__ void cross_row_kernel(AttendArgs<T> args, CacheView cache, const std::int32_t* source_lengths, StepRows rows) {
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

// A block per token, in pieces of 16 bytes where rows allow it.
template <class Piece>
__global__ void store_kernel(const Piece* keys_values, std::int64_t stride, std::int64_t width, const std::int32_t* token_slots, const std::int32_t* positions,
                             CacheView cache) {
  const std::int64_t row = blockIdx.x;
  Piece* place = static_cast<Piece*>(cache.pages) + cache_row(cache, token_slots[row], positions[row], 0) * width;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) place[i] = keys_values[row * stride + i];
}

}  // namespace

template <class T>
void attend_self(const AttendArgs<T>& args, const CacheView& cache, const SearchState& state, const StepRows& rows, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      with_head(args.width / args.heads, [&](auto head) {
        self_tile_kernel<T, head><<<blocks_for(tile_warps(args.heads, rows), kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, state, rows);
      });
      return;
    }
  }
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows.rows(), kWarpsPerBlock), static_cast<unsigned>(args.heads));
    self_row_kernel<T, columns><<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, state, rows);
  });
}

template <class T>
void attend_cross(const AttendArgs<T>& args, const CacheView& cache, const std::int32_t* source_lengths, const StepRows& rows, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      with_head(args.width / args.heads, [&](auto head) {
        cross_tile_kernel<T, head><<<blocks_for(tile_warps(args.heads, rows), kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, source_lengths, rows);
      });
      return;
    }
  }
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows.rows(), kWarpsPerBlock), static_cast<unsigned>(args.heads));
    cross_row_kernel<T, columns><<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, source_lengths, rows);
  });
}

template <class T>
void store_cross(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width, const std::int32_t* token_slots,
                 const std::int32_t* positions, const CacheView& cache, cudaStream_t stream) {
  if (rows == 0) return;
  constexpr std::int64_t kPiece = 16 / static_cast<std::int64_t>(sizeof(T));
  const auto address = reinterpret_cast<std::uintptr_t>(keys_values) | reinterpret_cast<std::uintptr_t>(cache.pages);
  if (address % 16 == 0 && width % kPiece == 0 && stride % kPiece == 0) {
    store_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(reinterpret_cast<const uint4*>(keys_values), stride / kPiece, width / kPiece, token_slots, positions, cache);
  } else {
    store_kernel<<<static_cast<unsigned>(rows), 128, 0, stream>>>(keys_values, stride, width, token_slots, positions, cache);
  }
}

#define INSTANTIATE(T)                                                                                                              \
  template void attend_self<T>(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&, cudaStream_t);          \
  template void attend_cross<T>(const AttendArgs<T>&, const CacheView&, const std::int32_t*, const StepRows&, cudaStream_t);        \
  template void store_cross<T>(const T*, std::int64_t, std::int64_t, std::int64_t, const std::int32_t*, const std::int32_t*, const CacheView&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
