// Self-attention inside the sentences of packed rows. On tensor cores a warp takes 16 queries of a sentence and one head
// (attention_tile.cuh); elsewhere one row and one head (attention_rows.cuh). Float32 sums.
#include "engine/cuda/attention_rows.cuh"
#include "engine/cuda/attention_tile.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kQueries = 16;

// The first sentence of [0, sentences) beyond which start(b) > wanted: start is not decreasing and start(0) <= wanted.
template <class Start>
__device__ std::int64_t find_sentence(std::int64_t sentences, std::int64_t wanted, const Start& start) {
  std::int64_t low = 0, high = sentences;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (start(middle) <= wanted ? low : high) = middle;
  }
  return low;
}

// Sentence b has the tiles from offsets[b] / 16 + b on: at least as many as it needs, and their number is known without a table.
template <class T, int kHead>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp) packed_tile_kernel(AttendArgs<T> args, const std::int32_t* offsets, std::int64_t sentences, std::int64_t tiles) {
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const std::int64_t tile_index = warp / args.heads;
  if (tile_index >= tiles) return;
  const int head = static_cast<int>(warp % args.heads), lane = threadIdx.x % kWarp, g = lane / 4;
  const auto first_tile = [&](std::int64_t b) { return offsets[b] / kQueries + b; };
  const std::int64_t sentence = find_sentence(sentences, tile_index, first_tile);
  const int begin = offsets[sentence], n = offsets[sentence + 1] - begin;
  const int first_query = static_cast<int>(tile_index - first_tile(sentence)) * kQueries;
  if (first_query >= n) return;

  const T* rows = args.query + begin * args.query_stride + head * kHead;
  const int low = first_query + g, high = low + 8;
  TileAttention<T, kHead, true> tile;
  tile.begin(low < n ? rows + low * args.query_stride : nullptr, high < n ? rows + high * args.query_stride : nullptr);
  const T* keys = rows + args.width;
  const unsigned row_units = static_cast<unsigned>(args.query_stride / 8);
  for (int first = 0; first < n; first += kWarp) {
    const int t = first + lane;
    const TileEntry entry = t < n ? TileEntry{static_cast<unsigned>(t) * row_units, TileEntry::kAll} : TileEntry{};
    add_entries(tile, keys, args.width, entry, min(kWarp, n - first));
  }
  T* out = args.out + begin * args.out_stride + head * kHead;
  tile.end(low < n ? out + low * args.out_stride : nullptr, high < n ? out + high * args.out_stride : nullptr);
}

template <class T, int kColumns>
__global__ void packed_row_kernel(AttendArgs<T> args, const std::int32_t* offsets, std::int64_t sentences, std::int64_t rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  if (row >= rows) return;
  const std::int64_t sentence = find_sentence(sentences, row, [&](std::int64_t b) { return offsets[b]; });
  const std::int64_t first = offsets[sentence], n = offsets[sentence + 1] - first;
  const T* keys = args.query + first * args.query_stride + args.width + head * width;
  attend<T, kColumns>(args.query + row * args.query_stride + head * width, n, width, args.width,
                      [&](std::int64_t t) { return keys + t * args.query_stride; }, args.out + row * args.out_stride + head * width);
}

}  // namespace

template <class T>
void attend_packed(const AttendArgs<T>& args, const std::int32_t* offsets, std::int64_t sentences, std::int64_t rows, cudaStream_t stream) {
  if (rows == 0) return;
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      const std::int64_t tiles = rows / kQueries + sentences, warps = tiles * args.heads;
      with_head(args.width / args.heads, [&](auto head) {
        packed_tile_kernel<T, head><<<blocks_for(warps, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(args, offsets, sentences, tiles);
      });
      return;
    }
  }
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows, kWarpsPerBlock), static_cast<unsigned>(args.heads));
    packed_row_kernel<T, columns><<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, offsets, sentences, rows);
  });
}

#define INSTANTIATE(T) template void attend_packed<T>(const AttendArgs<T>&, const std::int32_t*, std::int64_t, std::int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
