// This file has the solo kernel's products, of which every block that computes layers has a slice.
// Where several clusters compute the layers, a block posts its outputs (mailbox.cuh), and the
// blocks of each cluster forward to one another what all have posted.
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
  const int rank = static_cast<int>(rank_in_cluster()), head = rank / args.head_stride;
  return rank % args.head_stride == 0 && head < args.heads ? head : -1;
}

// This block computes the tiles [first, first + count) of a product.
struct SoloSlice {
  int first, count;
  __device__ explicit SoloSlice(const SoloOp& op)
      : first(static_cast<int>(blockIdx.x) * op.tiles_each),
        count(max(0, min(op.tiles_each, op.tiles - first))) {}
};
// Loads the weights of the block's slice of a product, stage by stage. One thread calls it. Returns
// false if no more stages will be read.
__device__ inline bool load_weights(const SoloBlock& block, std::uint32_t stages,
                                    SoloPipelineState& ring, const SoloOp& op) {
  const SoloSlice slice(op);
  const std::uint32_t bytes =
      static_cast<std::uint32_t>(op.round_tiles * op.stage_boxes) * kSoloBoxBytes;
  const char* from = static_cast<const char*>(op.weight) +
                     static_cast<std::size_t>(blockIdx.x * op.rounds) * op.stages * bytes;
  for (int round = 0; round < slice.count; round += op.round_tiles) {
    for (int stage = 0; stage < op.stages; ++stage, ring.advance()) {
      if (!wait_for_room(block, ring)) return false;
      const std::uint32_t full = shared_address(&block.full[ring.index]);
      arrive_expecting(full, bytes);
      load_bytes(stages + ring.index * kSoloStageBytes, from, bytes, full);
      from += bytes;
    }
  }
  return true;
}

// Copies the block's slice of a bias to its shared memory, or zeros where there is none.
template <class T, bool kAny>
__device__ inline void keep_biases(const SoloOp& op, char* memory) {
  const SoloSlice slice(op);
  for (int i = threadIdx.x; i < slice.count * kSoloTileOutputs; i += kSoloThreads) {
    int output = slice.first * kSoloTileOutputs + i;
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
                                             const Exchange& exchange) {
  const std::uint32_t to = address + column * 2;
  if (op.for_heads)
    exchange.send_to(block_of_column<kHead>(args, column), to, outputs);
  else
    exchange.send(to, outputs);
}
// Does the same for 8 sums in float32, which always go to all blocks.
__device__ __forceinline__ void send_sums(int column, std::uint32_t address, const uint4 (&sums)[2],
                                          const Exchange& exchange) {
  exchange.send(address + column * 4, sums[0]);
  exchange.send(address + column * 4 + 16, sums[1]);
}

// Computes the block's slice of a product. In each round a warp computes a tile of 16 outputs over
// all columns and sends it, or with kWide posts it for forward_outputs. A warp without a tile skips
// the round's stages.
template <class T, int kHead, bool kAny, bool kWide>
__device__ __forceinline__ void product(const SoloArgs& args, const SoloOp& op,
                                        const SoloBlock& block, std::uint32_t address,
                                        const char* memory, SoloPipelineState& ring,
                                        const Exchange& exchange) {
  const SoloSlice slice(op);
  const SoloMailbox mailbox(args, op, exchange);
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4;
#pragma unroll 1
  for (int round = 0; round < slice.count; round += op.round_tiles) {
    const int workers = min(op.round_tiles, slice.count - round);
    if (warp >= workers) {
      ring.skip(op.stages);
      continue;
    }
    float sums[4] = {};
    const SoloTile tile(address + op.x.at, op.x.pitch, args.beams, warp, op.stage_boxes);
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
    const int own_tile = slice.first + round + warp;
    const std::uint32_t to = address + op.out.at + g * op.out.pitch;
    const T* bias =
        reinterpret_cast<const T*>(memory + op.biases) + (round + warp) * kSoloTileOutputs + g;
    if (kAny && op.out_kind == SoloOut::kGated) {
      const int column = own_tile * (kSoloTileOutputs / 2);
      const std::uint32_t pair =
          gated_outputs<T>({sums[0], sums[1], sums[2], sums[3]}, to_float(bias[0]),
                           to_float(bias[kSoloTileOutputs / 2]), op.activation);
      if constexpr (kWide) {
        mailbox.post(column, pair);
      } else {
        const uint4 vector = row_of_outputs(pair);
        if (g < args.beams) send_outputs<kHead>(args, op, column, to, vector, exchange);
      }
      continue;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = own_tile * kSoloTileOutputs + 8 * half;
      const float own = to_float(bias[8 * half]), even = sums[2 * half] + own,
                  odd = sums[2 * half + 1] + own;
      if (op.out_kind == SoloOut::kFloat32) {
        if constexpr (kWide) {
          mailbox.post(column, even, odd);
        } else {
          uint4 vectors[2];
          row_of_sums(even, odd, vectors);
          if (g < args.beams) send_sums(column, to, vectors, exchange);
        }
        continue;
      }
      const T pair[2] = {activated_output<T>(even, op.activation),
                         activated_output<T>(odd, op.activation)};
      const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(pair);
      if constexpr (kWide) {
        mailbox.post(column, word);
      } else {
        const uint4 vector = row_of_outputs(word);
        if (g < args.beams) send_outputs<kHead>(args, op, column, to, vector, exchange);
      }
    }
  }
}

// Sends the outputs of a product that the blocks of all clusters have posted to the blocks of this
// cluster. Each block forwards a sixteenth of the columns to all of them. Where the operation is
// for_heads, it takes just the columns of its head, for itself. A warp forwards 8 outputs of all
// rows at once, and looks for kAhead times as many before that.
template <class T, int kHead>
__device__ __forceinline__ void forward_outputs(const SoloArgs& args, const SoloOp& op, int head,
                                                std::uint32_t address, const Exchange& exchange) {
  constexpr int kHeadGroups = kHead / 8, kAhead = 4;
  const SoloMailbox mailbox(args, op, exchange);
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4, groups = op.width / 8,
            each = (groups + kSoloCluster - 1) / kSoloCluster,
            start = static_cast<int>(rank_in_cluster()) * each,
            count = !op.for_heads ? min(each, groups - start)
                    : head >= 0   ? op.for_heads * kHeadGroups
                                  : 0;
  const std::uint32_t to = address + op.out.at + g * op.out.pitch;
  const auto column_of = [&](int i) {
    return !op.for_heads
               ? (start + i) * 8
               : i / kHeadGroups * args.attention_width + head * kHead + i % kHeadGroups * 8;
  };
#pragma unroll 1
  for (int first = warp; first < count; first += kAhead * kSoloWarps) {
    ulonglong2 words[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (first + j * kSoloWarps < count)
        words[j] = mailbox.look(column_of(first + j * kSoloWarps));
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = first + j * kSoloWarps;
      if (i >= count) break;
      const int column = column_of(i);
      while (!mailbox.complete(words[j])) words[j] = mailbox.look(column);
      const auto even = static_cast<std::uint32_t>(words[j].x),
                 odd = static_cast<std::uint32_t>(words[j].y);
      if (op.out_kind == SoloOut::kFloat32) {
        uint4 vectors[2];
        row_of_sums(__uint_as_float(even), __uint_as_float(odd), vectors);
        if (g < args.beams) send_sums(column, to, vectors, exchange);
      } else {
        const uint4 vector = row_of_outputs(even);
        if (g < args.beams) send_outputs<kHead>(args, op, column, to, vector, exchange);
      }
    }
  }
}

}  // namespace xlate::cuda
