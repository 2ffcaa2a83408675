// This file packs weights for the solo kernel (SoloPacking in solo.h).
#include "engine/cuda/solo/block.cuh"

namespace xlate::cuda {
namespace {

// Each thread writes a vector of 8 columns of the packed weight.
__global__ void pack_kernel(SoloPacking packing, int rounds, std::int64_t vectors,
                            const uint4* weight, uint4* packed) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSoloThreads + threadIdx.x;
  if (i >= vectors) return;
  const int chunk = static_cast<int>(i % 8), boxes = packing.columns / 64;
  std::int64_t rest = i / 8;
  const auto next = [&](int count) {
    const int digit = static_cast<int>(rest % count);
    rest /= count;
    return digit;
  };
  const int row = next(kSoloTileOutputs), stage_box = next(packing.stage_boxes),
            round_tile = next(packing.round_tiles),
            box = next(boxes / packing.stage_boxes) * packing.stage_boxes + stage_box,
            in_slice = next(rounds) * packing.round_tiles + round_tile,
            slice = static_cast<int>(rest),
            tile = first_tile_of(slice, packing.tiles, packing.slices) + in_slice;
  const std::int64_t place = static_cast<std::int64_t>(tile) * kSoloTileOutputs + row,
                     output = packing.gated ? gated_row(place, packing.rows / 2) : place;
  const bool there =
      tile < first_tile_of(slice + 1, packing.tiles, packing.slices) && place < packing.rows;
  packed[i] = there ? weight[output * (packing.stride / 8) + box * 8 + (chunk ^ row % 8)] : uint4{};
}

}  // namespace

void pack_solo_weight(const SoloPacking& packing, const void* weight, void* packed,
                      cudaStream_t stream) {
  const auto vectors = static_cast<std::int64_t>(packing.bytes() / 16);
  pack_kernel<<<blocks_for(vectors, kSoloThreads), kSoloThreads, 0, stream>>>(
      packing, packing.rounds(), vectors, static_cast<const uint4*>(weight),
      static_cast<uint4*>(packed));
}

}  // namespace xlate::cuda
