// A lone sentence's step: the token's embedding, layer norms, products. Embedding and norms are
// computed by every block for itself.
#pragma once

#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/solo/block.cuh"

namespace xlate::cuda {

constexpr int kSoloNormPieces = 4;  // of a row, a lane

template <class T>
__device__ __forceinline__ T* row_at(const SoloRows& rows, int row, char* memory) {
  return reinterpret_cast<T*>(memory + rows.at + row * rows.pitch);
}
// … null where there are none.
template <class T>
__device__ __forceinline__ WideRow<T> wide_row_at(const SoloRows& rounded, const SoloRows& rest,
                                                  int row, char* memory) {
  return {rounded.pitch ? row_at<T>(rounded, row, memory) : nullptr,
          rest.pitch ? row_at<std::int8_t>(rest, row, memory) : nullptr};
}

template <class T>
__device__ inline void embed_rows(const SoloProgram& program, const SoloNews& news, char* memory) {
  constexpr int kSize = Piece<T>::kSize;
  const int pieces = program.width / kSize;
  const float* position = program.positions + news.length * program.positions_stride;
  for (int i = threadIdx.x; i < program.beams * pieces; i += kSoloThreads) {
    const int row = i / pieces, column = i % pieces * kSize;
    const T* table = static_cast<const T*>(program.table) + news.tokens[row] * program.table_stride;
    float values[kSize];
    unpack_piece<T>(values, load_piece(table + column));
    const Floats<kSize> places(position + column);
#pragma unroll
    for (int j = 0; j < kSize; ++j) values[j] = fmaf(values[j], program.scale, places.values[j]);
    store_values(wide_row_at<T>(program.embedded, program.embedded_rest, row, memory), column,
                 values);
  }
}

// Gain and shift of a norm to come, to one of two places in turns, by the threads from `first` on.
__device__ __forceinline__ float* norm_place(const SoloProgram& program, char* memory, int turn) {
  return reinterpret_cast<float*>(memory + program.layout.norm) + turn * 2 * program.width;
}
__device__ __forceinline__ void fetch_norm(const SoloOp& op, float* to, int first) {
  const int pieces = op.in / 4;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) - first; i < 2 * pieces; i += kSoloThreads - first) {
    fetch_piece(to + 4 * i, i < pieces ? op.gain + 4 * i : op.shift + 4 * (i - pieces));
  }
}

// Not inlined: it needs many registers.
template <class T>
__device__ __noinline__ void norm_wide_row(const float* x, WideRow<const T> added,
                                           const float* gain, const float* shift, WideRow<T> out,
                                           int width, float epsilon) {
  norm_pieces<T, float, kSoloNormPieces>(x, nullptr, added, gain, shift, out, width, epsilon);
}

// A warp a row; none of them needs what another one writes.
template <class T>
__device__ __forceinline__ void norm_row(const SoloOp& op, int row, const float* gain,
                                         char* memory) {
  const float* x = row_at<float>(op.x, row, memory);
  const auto added = wide_row_at<const T>(op.added, op.added_rest, row, memory);
  const auto out = wide_row_at<T>(op.out, op.out_rest, row, memory);
  if (op.in <= 2 * kWarp * Piece<T>::kSize)
    norm_pieces<T, float, 2>(x, nullptr, added, gain, gain + op.in, out, op.in, op.epsilon);
  else
    norm_wide_row<T>(x, added, gain, gain + op.in, out, op.in, op.epsilon);
}

// They round as the library's epilogues and finish_kernel (products/finish.cu) do.
__device__ __noinline__ float activated(float y, Activation activation) {
  return activate(y, activation);
}
template <class T>
__device__ __forceinline__ T finished(float sum, float bias, Activation activation) {
  const float y = sum + bias;
  if (activation == Activation::kNone) return from_float<T>(y);
  if (activation == Activation::kRelu) return from_float<T>(fmaxf(y, 0.0f));
  return from_float<T>(activated(to_float(from_float<T>(y)), activation));
}

// The block whose head a column of queries, keys or values belongs to.
template <int kHead>
__device__ __forceinline__ std::uint32_t block_of_column(const SoloProgram& program, int column) {
  while (column >= program.width) column -= program.width;
  return static_cast<std::uint32_t>(column / kHead * program.head_step);
}
// The head of this block, or −1.
__device__ inline int head_of_block(const SoloProgram& program) {
  const int rank = static_cast<int>(rank_in_cluster()), head = rank / program.head_step;
  return rank % program.head_step == 0 && head < program.heads ? head : -1;
}

struct SoloShare {
  int first, count;  // tiles of this block
  __device__ explicit SoloShare(const SoloOp& op)
      : first(static_cast<int>(rank_in_cluster()) * op.tiles_each),
        count(max(0, min(op.tiles_each, op.tiles - first))) {}
};
// Brings a product's weights. One thread; false where no more are wanted.
__device__ inline bool bring_weights(const SoloBlock& block, std::uint32_t stages, SoloRing& ring,
                                     const SoloOp& op) {
  const SoloShare share(op);
  const std::uint32_t box_bytes =
      static_cast<std::uint32_t>(op.pass_tiles) * kSoloTileOutputs * kSoloBoxLine;
  const char* from = static_cast<const char*>(op.weight) +
                     static_cast<std::size_t>(rank_in_cluster() * op.passes) * op.boxes * box_bytes;
  for (int pass = 0; pass < share.count; pass += op.pass_tiles) {
    for (int box = 0; box < op.boxes; box += op.stage_boxes, ring.advance()) {
      if (!wait_for_room(block, ring)) return false;
      const std::uint32_t full = shared_address(&block.full[ring.place]),
                          bytes = min(op.stage_boxes, op.boxes - box) * box_bytes;
      arrive_expecting(full, bytes);
      load_bytes(stages + ring.place * kSoloStageBytes, from, bytes, full);
      from += bytes;
    }
  }
  return true;
}

// The block's share of a bias, zero where there is none.
template <class T>
__device__ inline void keep_biases(const SoloOp& op, char* memory) {
  const SoloShare share(op);
  for (int i = threadIdx.x; i < share.count * kSoloTileOutputs; i += kSoloThreads) {
    reinterpret_cast<T*>(memory + op.biases)[i] =
        op.bias ? static_cast<const T*>(op.bias)[share.first * kSoloTileOutputs + i]
                : from_float<T>(0.0f);
  }
}

// A warp takes a tile of 16 outputs over all columns, and sends it to all blocks.
template <class T, int kHead>
__device__ __forceinline__ void product(const SoloProgram& program, const SoloOp& op,
                                        const SoloBlock& block, std::uint32_t address,
                                        const char* memory, SoloRing& ring,
                                        const Exchange& exchange) {
  const SoloShare share(op);
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4;
#pragma unroll 1
  for (int pass = 0; pass < share.count; pass += op.pass_tiles) {
    const int workers = min(op.pass_tiles, share.count - pass);
    if (warp >= workers) {
      ring.skip(op.stages);
      continue;
    }
    float sums[4] = {};
    const SoloTile tile(address + op.x.at, op.x.pitch, program.beams, warp);
    const std::uint32_t box_bytes =
        static_cast<std::uint32_t>(op.pass_tiles) * kSoloTileOutputs * kSoloBoxLine;
    if (op.stage_boxes == kSoloStageBoxes)
      sum_stages<T, kSoloStageBoxes>(block, address, ring, tile, op.stages, box_bytes, workers,
                                     sums);
    else
      sum_stages<T, 1>(block, address, ring, tile, op.stages, box_bytes, workers, sums);
    const T* bias =
        reinterpret_cast<const T*>(memory + op.biases) + (pass + warp) * kSoloTileOutputs + g;
    const std::uint32_t to = address + op.out.at + g * op.out.pitch +
                             (share.first + pass + warp) * kSoloTileOutputs *
                                 static_cast<int>(op.sums ? sizeof(float) : sizeof(T));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float own = to_float(bias[8 * half]);
      if (op.sums) {
        uint4 pieces[2];
        row_of_sums(sums[2 * half] + own, sums[2 * half + 1] + own, pieces);
        if (g >= program.beams) continue;
        exchange.send(to + 32 * half, pieces[0]);
        exchange.send(to + 32 * half + 16, pieces[1]);
        continue;
      }
      const T pair[2] = {finished<T>(sums[2 * half], own, op.activation),
                         finished<T>(sums[2 * half + 1], own, op.activation)};
      const uint4 piece = row_of_outputs(*reinterpret_cast<const std::uint32_t*>(pair));
      if (g >= program.beams) continue;
      if (op.for_heads)
        exchange.send_to(
            block_of_column<kHead>(program, (share.first + pass + warp) * kSoloTileOutputs),
            to + 16 * half, piece);
      else
        exchange.send(to + 16 * half, piece);
    }
  }
}

}  // namespace xlate::cuda
