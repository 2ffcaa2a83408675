// This file has the solo kernel's products, of which every block that computes layers has a slice.
// A block sends its outputs to the other blocks of its cluster, or in a wide network posts them
// (mailbox.cuh).
#pragma once

#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/solo/mailbox.cuh"

namespace xlate::cuda {

// This function is not inlined because erff and tanhf would lengthen the code of every product, and
// products without an activation or with ReLU do not call it.
__device__ __noinline__ float activated(float y, Activation activation) {
  return activate(y, activation);
}
// Applies the activation to a sum with its bias, with the roundings of the library's epilogues and
// of epilogue_kernel (products/epilogue.cu): only activations other than ReLU start from a sum that
// is rounded to T.
template <class T>
__device__ __forceinline__ T activated_output(float y, Activation activation) {
  if (activation == Activation::kNone) return from_float<T>(y);
  if (activation == Activation::kRelu) return from_float<T>(fmaxf(y, 0.0f));
  return from_float<T>(activated(to_float(from_float<T>(y)), activation));
}

// Returns the block that computes the head of a column of queries, keys or values.
template <int kHead>
__device__ __forceinline__ std::uint32_t block_of_column(const SoloArgs& args, int column) {
  while (column >= args.attention_width) column -= args.attention_width;
  return static_cast<std::uint32_t>(column / kHead * args.head_stride);
}
// Returns the head that this block computes, or −1.
__device__ inline int head_of_block(const SoloArgs& args) {
  const int block = static_cast<int>(blockIdx.x), head = block / args.head_stride;
  return block % args.head_stride == 0 && head < args.heads ? head : -1;
}

// Says in an operation which tiles of a product this block has.
__device__ inline void set_tiles(const SoloArgs& args, SoloOp& op) {
  const int block = static_cast<int>(blockIdx.x);
  op.first_tile = first_tile_of(block, op.tiles, args.layer_blocks);
  op.tile_count = first_tile_of(block + 1, op.tiles, args.layer_blocks) - op.first_tile;
}
// Loads the weights of the block's slice of a product, stage by stage. One thread calls it. Returns
// false if no more stages will be read.
__device__ inline bool load_weights(const SoloBlock& block, std::uint32_t stages,
                                    SoloPipelineState& ring, const SoloOp& op) {
  const std::uint32_t tile_bytes = static_cast<std::uint32_t>(op.stage_boxes) * kSoloBoxBytes,
                      stage_bytes = static_cast<std::uint32_t>(op.round_tiles) * tile_bytes;
  const char* from = static_cast<const char*>(op.weight) +
                     static_cast<std::size_t>(blockIdx.x * op.rounds) * op.stages * stage_bytes;
  for (int round = 0; round < op.tile_count; round += op.round_tiles) {
    // The last round may have fewer tiles, which come first in each of its stages.
    const int tiles = min(op.round_tiles, op.tile_count - round);
    const std::uint32_t bytes = static_cast<std::uint32_t>(tiles) * tile_bytes;
    for (int stage = 0; stage < op.stages; ++stage, ring.advance(), from += stage_bytes) {
      if (!wait_for_room(block, ring)) return false;
      const std::uint32_t full = shared_address(&block.full[ring.index]);
      arrive_expecting(full, bytes);
      load_bytes(stages + ring.index * kSoloStageBytes, from, bytes, full);
    }
  }
  return true;
}

// Copies the block's slice of a bias to its shared memory, or zeros where there is none.
template <class T, bool kAny>
__device__ inline void keep_biases(const SoloOp& op, char* memory) {
  for (int i = threadIdx.x; i < op.tile_count * kSoloTileOutputs; i += kSoloThreads) {
    int output = op.first_tile * kSoloTileOutputs + i;
    if (kAny && op.out_kind == SoloOut::kGated)
      output = static_cast<int>(gated_row(output, op.width));
    reinterpret_cast<T*>(memory + op.biases)[i] =
        op.bias ? static_cast<const T*>(op.bias)[output] : from_float<T>(0.0f);
  }
}

// Gates the sums of a tile of a gated product, with the roundings of a product and of gate_kernel
// (products/epilogue.cu) behind it. The lane passes its sums of output g of the first half and of
// the second half, each of two rows of x. It gets output g of both rows. It is not inlined because
// that would lengthen the code of every product.
template <class T>
__device__ __noinline__ std::uint32_t gated_outputs(float4 sums, float first_bias,
                                                    float second_bias, Activation activation) {
  const auto gated = [&](float first, float second) {
    return from_float<T>(activate(to_float(from_float<T>(first + first_bias)), activation) *
                         to_float(from_float<T>(second + second_bias)));
  };
  const T pair[2] = {gated(sums.x, sums.z), gated(sums.y, sums.w)};
  return *reinterpret_cast<const std::uint32_t*>(pair);
}

// Sends 8 outputs of a row to the blocks of the cluster that read them: to all, or where the
// operation is for_heads only to the block that has the head. The four lanes of a quad call it with
// the same arguments. `column` is that of the first output, and `address` is where the row's
// outputs begin.
template <int kHead>
__device__ __forceinline__ void send_outputs(const SoloArgs& args, const SoloOp& op, int column,
                                             std::uint32_t address, const uint4& outputs,
                                             const Exchange<kSoloCluster>& exchange) {
  const std::uint32_t to = address + column * 2;
  if (op.for_heads)
    exchange.send_to(block_of_column<kHead>(args, column), to, outputs);
  else
    exchange.send(to, outputs);
}
// Does the same for 8 sums in float32, which always go to all blocks.
__device__ __forceinline__ void send_sums(int column, std::uint32_t address, const uint4 (&sums)[2],
                                          const Exchange<kSoloCluster>& exchange) {
  exchange.send(address + column * 4, sums[0]);
  exchange.send(address + column * 4 + 16, sums[1]);
}

// Sends a product's outputs to the blocks of the cluster, where one computes all layers.
template <class T, int kHead>
struct SoloSender {
  const SoloArgs& args;
  const SoloOp& op;
  const Exchange<kSoloCluster>& exchange;
  std::uint32_t to;  // The row of the lane's quad begins at this address.
  bool has_row;
  __device__ SoloSender(const SoloArgs& args, const SoloOp& op,
                        const Exchange<kSoloCluster>& exchange, std::uint32_t address)
      : args(args), op(op), exchange(exchange) {
    const int g = threadIdx.x % kWarp / 4;
    to = address + op.out.at + g * op.out.pitch, has_row = g < args.beams;
  }
  // Takes a pair of outputs of each lane, as row_of_outputs and row_of_sums do.
  __device__ __forceinline__ void put(int column, std::uint32_t pair) const {
    const uint4 vector = row_of_outputs(pair);
    if (has_row) send_outputs<kHead>(args, op, column, to, vector, exchange);
  }
  __device__ __forceinline__ void put(int column, float even, float odd) const {
    uint4 vectors[2];
    row_of_sums(even, odd, vectors);
    if (has_row) send_sums(column, to, vectors, exchange);
  }
};
// Posts a product's outputs for all clusters that compute layers.
struct SoloPoster {
  SoloMailbox mailbox;
  int row, column_of_lane;
  bool has_row;
  __device__ SoloPoster(const SoloArgs& args, const SoloOp& op, unsigned number)
      : mailbox(args, op, number) {
    row = threadIdx.x % kWarp / 4, column_of_lane = threadIdx.x % 4 * 2, has_row = row < args.beams;
  }
  __device__ __forceinline__ void put(int column, std::uint32_t pair) const {
    std::uint32_t word = transposed(pair);
    keep_before_branch(word);
    if (has_row) mailbox.post(row, column + column_of_lane, word);
  }
  __device__ __forceinline__ void put(int column, float even, float odd) const {
    auto [first, second] = transposed_sums(even, odd);
    keep_before_branch(first), keep_before_branch(second);
    if (has_row) mailbox.post(row, column + column_of_lane, first, second);
  }

 private:
  // All lanes take part in a transposition, so it must not move into the branch of some of them.
  __device__ static __forceinline__ void keep_before_branch(std::uint32_t& value) {
    asm volatile("" : "+r"(value));
  }
};

// Computes the block's slice of a product. In each round a warp computes a tile of 16 outputs over
// all columns, which it gives to a SoloSender or a SoloPoster. A warp without a tile skips the
// round's stages.
template <class T, bool kAny, bool kWide, class Outputs>
__device__ __forceinline__ void product(const SoloOp& op, const SoloBlock& block,
                                        std::uint32_t address, const char* memory, int beams,
                                        SoloPipelineState& ring, const Outputs& outputs) {
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4;
#pragma unroll 1
  for (int round = 0; round < op.tile_count; round += op.round_tiles) {
    const int workers = min(op.round_tiles, op.tile_count - round);
    if (warp >= workers) {
      ring.skip(op.stages);
      continue;
    }
    float sums[4] = {};
    const SoloTile tile(address + op.x.at, op.x.pitch, beams, warp, op.stage_boxes);
    if (kWide && op.stage_boxes == kSoloMostStageBoxes)
      sum_stages<T, kSoloMostStageBoxes>(block, address, ring, tile, op.stages, workers, sums);
    else if (kWide && op.stage_boxes == kSoloMostStageBoxes - 2)
      sum_stages<T, kSoloMostStageBoxes - 2>(block, address, ring, tile, op.stages, workers, sums);
    else if (op.stage_boxes == kSoloStageBoxes)
      sum_stages<T, kSoloStageBoxes>(block, address, ring, tile, op.stages, workers, sums);
    else if (kAny && op.stage_boxes == kSoloStageBoxes / 2)
      sum_stages<T, kSoloStageBoxes / 2>(block, address, ring, tile, op.stages, workers, sums);
    else
      sum_stages<T, 1>(block, address, ring, tile, op.stages, workers, sums);
    const int own_tile = op.first_tile + round + warp;
    const T* bias =
        reinterpret_cast<const T*>(memory + op.biases) + (round + warp) * kSoloTileOutputs + g;
    if (kAny && op.out_kind == SoloOut::kGated) {
      outputs.put(own_tile * (kSoloTileOutputs / 2),
                  gated_outputs<T>({sums[0], sums[1], sums[2], sums[3]}, to_float(bias[0]),
                                   to_float(bias[kSoloTileOutputs / 2]), op.activation));
      continue;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = own_tile * kSoloTileOutputs + 8 * half;
      const float own = to_float(bias[8 * half]), even = sums[2 * half] + own,
                  odd = sums[2 * half + 1] + own;
      if (op.out_kind == SoloOut::kFloat32) {
        outputs.put(column, even, odd);
        continue;
      }
      const T pair[2] = {activated_output<T>(even, op.activation),
                         activated_output<T>(odd, op.activation)};
      outputs.put(column, *reinterpret_cast<const std::uint32_t*>(pair));
    }
  }
}

}  // namespace xlate::cuda
