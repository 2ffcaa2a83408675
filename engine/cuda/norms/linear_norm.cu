// Chooses among the kernels of linear_norm.cuh and launches them. This file also compiles those for
// post-norm networks.
#include <algorithm>

#include "engine/cuda/norms/linear_norm.cuh"

namespace xlate::cuda {
namespace {

// The kernel serves no fewer rows than this. The bound acts only where depth is small; for a
// greater depth linear_norm_is_faster asks for more rows.
constexpr std::int64_t kLeastRows = 512;
// It serves no fewer rows than this if they have more than 512 columns.
constexpr std::int64_t kLeastWideRows = 12288;
constexpr int kLeastTileRows = 64, kMostTileRows = 192, kTileStep = 32;
// A cluster lies in one GPC (graphics processing cluster). A GPC is taken to have this many
// multiprocessors. The 132 of an H200 lie in 8 GPCs, which makes 16.5 on average.
constexpr int kGpcMultiprocessors = 16;

// Returns how many clusters run at the same time. A GPC's multiprocessors that are too few for a
// cluster of three or four blocks stay idle.
std::int64_t concurrent_clusters(std::int64_t blocks, int multiprocessors) {
  if (blocks <= 2) return multiprocessors / blocks;
  const int gpcs = std::max(1, multiprocessors / kGpcMultiprocessors);
  return gpcs * (kGpcMultiprocessors / blocks);
}

}  // namespace

// Fewer rows make too few tiles to fill the device, and the deeper the product the longer each tile
// takes; a product and a norm as two kernels are faster then. The threshold for widths up to 512
// was found in post-norm networks of width 512, before the residual stream had low bits: two
// kernels and this one took 8.6 and 7.8 µs for 1024 rows of depth 512, 14 and 16.5 µs for 2048 rows
// of depth 2048, and 21.4 and 17.7 µs for 4096 rows. With low bits this kernel takes 9.11 µs for
// the first and 19.36 µs for the last (docs/kernels.md).
//
// Wider rows take clusters of three or four blocks, of which fewer run at the same time. Alone, the
// kernel takes 62 µs for 8192 rows of depth 1024 and width 1024, and two kernels 59 µs. In a run of
// NLLB's shape whose steps had up to 16,384 rows it made decoding 1.6 % and encoding 14 % faster,
// and in one with half as many rows it changed nothing (docs/kernels/linear_norm.md).
bool linear_norm_is_faster(int capability, std::int64_t rows, std::int64_t depth,
                           std::int64_t width) {
  const bool wide = width > 2 * kBlockOutputs;
  return linear_norm_supports(capability, depth, width) &&
         rows >= (wide ? kLeastWideRows : std::max(kLeastRows, depth * 3 / 2)) && rows < (1 << 30);
}

bool linear_norm_supports(int capability, std::int64_t depth, std::int64_t width) {
  return capability == 90 && depth > 0 && depth % kDepth == 0 && depth < (1 << 20) && width > 0 &&
         width % kBlockOutputs == 0 && width <= 4 * kBlockOutputs;
}

// Estimates the time of each tile size as the number of waves of clusters times the time of a tile.
// What a tile takes besides its products is as much as the products of some 100 rows of 512
// columns. A block's part of a tile is a multiple of 8 rows, which the 128-byte swizzle asks for.
int linear_norm_tile(std::int64_t rows, std::int64_t depth, std::int64_t width,
                     int multiprocessors) {
  const std::int64_t blocks = width / kBlockOutputs,
                     clusters = concurrent_clusters(blocks, multiprocessors);
  std::int64_t least = 0;
  int best = 0;
  for (int tile = kLeastTileRows; tile <= kMostTileRows; tile += kTileStep) {
    if (tile % (8 * blocks) != 0) continue;
    const std::int64_t tiles = (rows + tile - 1) / tile, rounds = (tiles + clusters - 1) / clusters,
                       time = rounds * (tile * depth + 100 * 512);
    if (best == 0 || time < least) least = time, best = tile;
  }
  return best;
}

template <class T>
void linear_norm(const LinearNormArgs<T>& args, cudaStream_t stream) {
  if (args.normed)
    linear_norm_before(args, stream);
  else
    launch_tile<T, false>(args, stream);
}

template void linear_norm<__half>(const LinearNormArgs<__half>&, cudaStream_t);
template void linear_norm<__nv_bfloat16>(const LinearNormArgs<__nv_bfloat16>&, cudaStream_t);

}  // namespace xlate::cuda
