// This file has the solo kernel's embedding, layer norms and products. Every block computes the
// embedding and the norms for itself, and a slice of every product.
#pragma once

#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/solo/block.cuh"

namespace xlate::cuda {

// A lane holds at most this many vectors of a row in a norm.
constexpr int kSoloNormVectors = 4;

template <class T>
__device__ __forceinline__ T* row_at(const SoloRows& rows, int row, char* memory) {
  return reinterpret_cast<T*>(memory + rows.at + row * rows.pitch);
}
// Returns a row of the residual stream. A pointer is null where there are no such rows.
template <class T>
__device__ __forceinline__ ResidualRow<T> residual_row_at(const SoloRows& rounded,
                                                          const SoloRows& low_bits, int row,
                                                          char* memory) {
  return {rounded.pitch ? row_at<T>(rounded, row, memory) : nullptr,
          low_bits.pitch ? row_at<std::int8_t>(low_bits, row, memory) : nullptr};
}

// Embeds the last token of each hypothesis.
template <class T, bool kAny>
__device__ inline void embed_rows(const SoloArgs& args, const SoloStepResult& step_result,
                                  char* memory) {
  constexpr int kSize = Vector16<T>::kSize;
  const int vectors = args.width / kSize;
  const float* position = args.positions + step_result.length * args.positions_stride;
  for (int i = threadIdx.x; i < args.beams * vectors; i += kSoloThreads) {
    const int row = i / vectors, column = i % vectors * kSize;
    const T* table =
        static_cast<const T*>(args.table) + step_result.tokens[row] * args.table_stride;
    float values[kSize];
    unpack_vector<T>(values, load_vector(table + column));
    const Floats<kSize> places =
        kAny && !args.positions ? Floats<kSize>() : Floats<kSize>(position + column);
#pragma unroll
    for (int j = 0; j < kSize; ++j) values[j] = fmaf(values[j], args.scale, places.values[j]);
    store_values(residual_row_at<T>(args.embedded, args.embedded_low_bits, row, memory), column,
                 values);
  }
}

// Returns where the gain and the shift of a norm are kept. Two places are used in turns, so that
// the next norm's can be fetched while one is read.
__device__ __forceinline__ float* norm_place(const SoloArgs& args, char* memory, int turn) {
  return reinterpret_cast<float*>(memory + args.layout.norm) + turn * args.layout.norm_floats;
}
// Starts copying the gain and the shift of a norm. The threads from `first` on call it.
template <bool kAny>
__device__ __forceinline__ void fetch_norm(const SoloOp& op, float* to, int first) {
  const int vectors = op.in / 4, all = kAny && !op.shift ? vectors : 2 * vectors;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) - first; i < all; i += kSoloThreads - first) {
    copy_async(to + 4 * i, i < vectors ? op.gain + 4 * i : op.shift + 4 * (i - vectors));
  }
}

// Normalizes rows that are wider than two vectors a lane. It is not inlined because it needs many
// registers.
template <class T>
__device__ __noinline__ void norm_residual_row(const float* x, ResidualRow<const T> residual,
                                               const float* gain, const float* shift,
                                               ResidualRow<T> out, int width, float epsilon) {
  norm_vectors<T, float, kSoloNormVectors>(x, nullptr, residual, gain, shift, out, width, epsilon);
}

// Computes whatever norm an operation may ask for, as norm_vector_kernel of norms/layer_norm.cu
// does. It is not inlined because it needs many registers.
template <class T>
__device__ __noinline__ void any_norm_row(const SoloOp& op, int row, const float* gain,
                                          char* memory) {
  float values[1][kSoloNormVectors][Vector16<T>::kSize];
  load_sum<T, float, kSoloNormVectors>(
      values[0], op.x.pitch ? row_at<float>(op.x, row, memory) : nullptr, nullptr,
      residual_row_at<const T>(op.residual, op.residual_low_bits, row, memory), op.in);
  if (op.stores_sum) {
    const auto sum = residual_row_at<T>(op.residual, op.residual_low_bits, row, memory);
#pragma unroll
    for (int p = 0; p < kSoloNormVectors; ++p) {
      const int column = vector_column<T>(p);
      if (column < op.in) store_values(sum, column, values[0][p]);
    }
  }
  const auto out = residual_row_at<T>(op.out, op.out_low_bits, row, memory);
  norm_values<T, kSoloNormVectors, 1, true>(
      values, gain, op.shift ? gain + op.in : nullptr, op.in, op.epsilon,
      [&](int, int column, const float(&results)[Vector16<T>::kSize]) {
        store_values(out, column, results);
      },
      op.rms != 0);
}

// Normalizes a row by a warp. The warps' rows do not depend on each other. The shift follows the
// gain.
template <class T, bool kAny>
__device__ __forceinline__ void norm_row(const SoloOp& op, int row, const float* gain,
                                         char* memory) {
  if constexpr (kAny) return any_norm_row<T>(op, row, gain, memory);
  const float* x = row_at<float>(op.x, row, memory);
  const auto residual = residual_row_at<const T>(op.residual, op.residual_low_bits, row, memory);
  const auto out = residual_row_at<T>(op.out, op.out_low_bits, row, memory);
  if (op.in <= 2 * kWarp * Vector16<T>::kSize)
    norm_vectors<T, float, 2>(x, nullptr, residual, gain, gain + op.in, out, op.in, op.epsilon);
  else
    norm_residual_row<T>(x, residual, gain, gain + op.in, out, op.in, op.epsilon);
}

// This function is not inlined because erff and tanhf would lengthen the code of every product, and
// products without an activation or with ReLU do not call it.
__device__ __noinline__ float activated(float y, Activation activation) {
  return activate(y, activation);
}
// Adds the bias and applies the activation, with the roundings of the library's epilogues and of
// epilogue_kernel (products/epilogue.cu): only activations other than ReLU start from a sum that is
// rounded to T.
template <class T>
__device__ __forceinline__ T with_epilogue(float sum, float bias, Activation activation) {
  const float y = sum + bias;
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
      : first(static_cast<int>(rank_in_cluster()) * op.tiles_each),
        count(max(0, min(op.tiles_each, op.tiles - first))) {}
};
// Loads the weights of the block's slice of a product, stage by stage. One thread calls it. Returns
// false if no more stages will be read.
__device__ inline bool load_weights(const SoloBlock& block, std::uint32_t stages,
                                    SoloPipelineState& ring, const SoloOp& op) {
  const SoloSlice slice(op);
  const std::uint32_t box_bytes =
      static_cast<std::uint32_t>(op.round_tiles) * kSoloTileOutputs * kSoloBoxRowBytes;
  const char* from = static_cast<const char*>(op.weight) +
                     static_cast<std::size_t>(rank_in_cluster() * op.rounds) * op.boxes * box_bytes;
  for (int round = 0; round < slice.count; round += op.round_tiles) {
    for (int box = 0; box < op.boxes; box += op.stage_boxes, ring.advance()) {
      if (!wait_for_room(block, ring)) return false;
      const std::uint32_t full = shared_address(&block.full[ring.index]),
                          bytes = min(op.stage_boxes, op.boxes - box) * box_bytes;
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

// Computes the block's slice of a product. In each round a warp computes a tile of 16 outputs over
// all columns and sends it to all blocks, or where the operation is for_heads only to the block
// that has the head. A warp without a tile skips the round's stages.
template <class T, int kHead, bool kAny>
__device__ __forceinline__ void product(const SoloArgs& args, const SoloOp& op,
                                        const SoloBlock& block, std::uint32_t address,
                                        const char* memory, SoloPipelineState& ring,
                                        const Exchange& exchange) {
  const SoloSlice slice(op);
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4;
#pragma unroll 1
  for (int round = 0; round < slice.count; round += op.round_tiles) {
    const int workers = min(op.round_tiles, slice.count - round);
    if (warp >= workers) {
      ring.skip(op.stages);
      continue;
    }
    float sums[4] = {};
    const SoloTile tile(address + op.x.at, op.x.pitch, args.beams, warp);
    const std::uint32_t box_bytes =
        static_cast<std::uint32_t>(op.round_tiles) * kSoloTileOutputs * kSoloBoxRowBytes;
    if (op.stage_boxes == kSoloStageBoxes)
      sum_stages<T, kSoloStageBoxes>(block, address, ring, tile, op.stages, box_bytes, workers,
                                     sums);
    else if (kAny && op.stage_boxes == kSoloStageBoxes / 2)
      sum_stages<T, kSoloStageBoxes / 2>(block, address, ring, tile, op.stages, box_bytes, workers,
                                         sums);
    else
      sum_stages<T, 1>(block, address, ring, tile, op.stages, box_bytes, workers, sums);
    const T* bias =
        reinterpret_cast<const T*>(memory + op.biases) + (round + warp) * kSoloTileOutputs + g;
    if (kAny && op.out_kind == SoloOut::kGated) {
      const uint4 vector =
          row_of_outputs(gated_outputs<T>({sums[0], sums[1], sums[2], sums[3]}, to_float(bias[0]),
                                          to_float(bias[kSoloTileOutputs / 2]), op.activation));
      if (g < args.beams)
        exchange.send(address + op.out.at + g * op.out.pitch + (slice.first + round + warp) * 16,
                      vector);
      continue;
    }
    const bool float32_out = op.out_kind == SoloOut::kFloat32;
    const std::uint32_t to = address + op.out.at + g * op.out.pitch +
                             (slice.first + round + warp) * kSoloTileOutputs *
                                 static_cast<int>(float32_out ? sizeof(float) : sizeof(T));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float own = to_float(bias[8 * half]);
      if (float32_out) {
        uint4 vectors[2];
        row_of_sums(sums[2 * half] + own, sums[2 * half + 1] + own, vectors);
        if (g >= args.beams) continue;
        exchange.send(to + 32 * half, vectors[0]);
        exchange.send(to + 32 * half + 16, vectors[1]);
        continue;
      }
      const T pair[2] = {with_epilogue<T>(sums[2 * half], own, op.activation),
                         with_epilogue<T>(sums[2 * half + 1], own, op.activation)};
      const uint4 vector = row_of_outputs(*reinterpret_cast<const std::uint32_t*>(pair));
      if (g >= args.beams) continue;
      if (op.for_heads)
        exchange.send_to(
            block_of_column<kHead>(args, (slice.first + round + warp) * kSoloTileOutputs),
            to + 16 * half, vector);
      else
        exchange.send(to + 16 * half, vector);
    }
  }
}

}  // namespace xlate::cuda
