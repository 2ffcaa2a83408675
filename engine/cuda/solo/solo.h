// This header describes the solo kernel (step.cu). One launch runs whole decoding steps of one
// sentence, with a batch size of one. A step consists of all layers, the vocabulary and the search,
// for up to 8 hypotheses, as far as shared memory holds their rows (SoloCompiler::lay_out). The
// kernel reads a second, packed copy of the weights. Its results have the bits of the kernels for
// many sentences, because it forms every sum in the same order as they do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/activation.h"
#include "engine/cuda/views.h"

namespace xlate::cuda {

// A sentence has at most this many hypotheses.
inline constexpr int kSoloRows = 8;
// The first cluster computes the layers, the others compute the vocabulary.
inline constexpr int kSoloMostClusters = 9;
// A cluster has this many blocks.
inline constexpr int kSoloCluster = 16;
// This many warps of a block compute. One more warp loads weights.
inline constexpr int kSoloWarps = 8;
// A warp computes this many outputs of a product at once.
inline constexpr int kSoloTileOutputs = 16;
// This many bytes lie behind each row in shared memory, so that reading eight rows at once meets no
// bank conflicts.
inline constexpr int kSoloGap = 16;
// A stage of the ring through which a block's weights pass has this many bytes.
inline constexpr int kSoloStageBytes = 16384;
// A stage holds this many boxes, or one.
inline constexpr int kSoloStageBoxes = 4;
inline constexpr int kSoloLeastStages = 4, kSoloMostStages = 13;
// The exponentials of this many ids of the vocabulary are summed together (vocabulary/project.cu).
inline constexpr int kSoloTileIds = 128;
// A launch runs at most this many steps.
inline constexpr int kSoloMostSteps = 200;

/// These are rows of which each block of the first cluster has a copy in its shared memory. They
/// are of T unless said otherwise. `at` is the offset of the first row and `pitch` the distance to
/// the next one, both in bytes. A pitch of 0 means that there are no rows.
struct SoloRows {
  int at, pitch;
};

enum class SoloKind : int { kNorm, kLinear, kSelf, kCross };

/// This is one operation on rows. What it does not use is 0 or null.
struct alignas(16) SoloOp {
  SoloKind kind;
  Activation activation;
  // In attention, a row of x is the query, in self-attention followed by the key and the value of
  // the new token. In a norm, x is float32.
  SoloRows x, residual, out;
  // Only norms have low bits, which are int8. A norm of a stream without low bits has none.
  SoloRows residual_low_bits, out_low_bits;
  // This is not 0 where a product's out is float32 because a norm reads it.
  int float32_out;
  // x has `in` columns, and out has `width`.
  int in, width;
  // A product has `tiles` tiles of 16 outputs, of which a block has at most `tiles_each`.
  int tiles, tiles_each;
  // A block computes this many tiles in one round, each by a warp. A box of the weight has
  // 16·round_tiles rows.
  int round_tiles;
  // A round has `boxes` boxes of 64 columns, and a full stage has `stage_boxes`.
  int boxes, stage_boxes;
  // A round has this many stages.
  int stages;
  // When this operation is done, the gain or the keys of operation `next` may be fetched. −1 means
  // that there is none.
  int next;
  // A block has this many rounds.
  int rounds;
  // This is not 0 where only attention reads out, so that a block needs only its head's columns.
  int for_heads;
  // The block's slice of the bias is at this offset in its shared memory.
  int biases;
  float epsilon;
  // The weight is packed (SoloPacking).
  const void* weight;
  const void* bias;    // T [width] or null
  const float* gain;   // [width]
  const float* shift;  // [width]
  // These are the pages of the layer's cache.
  void* pages;
};

/// This is the layout of a block's shared memory, which begins with the ring. Fields are offsets in
/// bytes unless said otherwise.
struct SoloLayout {
  // These fields are for blocks of the first cluster. `stages` is a number. `held_keys` is the
  // number of keys that a block holds at once, a multiple of a tile's. `key_pitch` is the distance
  // from a key to the next in bytes.
  int stages, ops, norm, self_keys, cross_keys, held_keys, key_pitch, list_rows, list_beam_masks,
      source_rows;
  // These fields are for blocks of the other clusters. `vocabulary_stages` is a number, and
  // `slice_tiles` is the largest number of tiles that a block has.
  int vocabulary_stages, hidden, logits, never, slice_tiles;
  // Every block has this much dynamic shared memory.
  int bytes;
};

/// Clusters signal to each other through these words in global memory. They are zero before the
/// first launch. After that only the kernel writes them, and launches share them. Each has a cache
/// line of its own.
struct SoloSignals {
  // This is launch << 8 | step. It says that the hidden rows of this step, counted from 1, can be
  // read. The step is kSoloStop when the launch has no more steps.
  alignas(128) unsigned hidden;
  // Every vocabulary block adds 1 in every step when it has written its sums and candidates. The
  // count goes on from launch to launch and may wrap around.
  alignas(128) unsigned blocks_done;
};
inline constexpr unsigned kSoloStop = 255;

/// These are the arguments of a launch: the compiled step, and what a launch adds to it.
struct SoloArgs {
  const SoloOp* ops;  // [count]
  int count;
  int beams, width, heads;  // K, D, H
  // Head h is computed by block h·head_stride.
  int head_stride;
  SoloLayout layout;
  // The next fields are for the embedding of the last tokens.
  const void* table;       // T [V, D]
  const float* positions;  // [P, D]
  std::int64_t table_stride, positions_stride;
  float scale;
  // The embedding writes `embedded` and `embedded_low_bits`. The vocabulary product reads `hidden`.
  SoloRows embedded, embedded_low_bits, hidden;
  // These are the first operations of their kinds, or −1.
  int first_norm, first_self, first_cross;
  CacheView self, cross;
  const std::int32_t* source_lengths;
  // The next fields are for the vocabulary and the search. The weight is packed, with one tile of
  // the vocabulary as a slice.
  const void* vocabulary_weight;
  const float* vocabulary_bias;  // [V] or null
  // `vocabulary` is V, and `tiles` is the number of its tiles.
  int vocabulary, tiles;
  // A row has this many candidates.
  int candidates;
  RulesView rules;
  SearchState state;
  const std::int32_t* slots;  // [1]
  void* hidden_rows;          // T [K, D]
  // The sums are [K, tiles], as in RowPartials.
  float2* sums;
  // [K, blocks of the vocabulary, candidates]
  TokenValue* lists;
  SoloSignals* signals;
  // The remaining fields belong to one launch. The launch runs at most this many steps. It stops
  // earlier when the sentence is done.
  int times;
  // Launches are numbered. The number is below 2²⁴.
  unsigned launch;
  // After the last step the kernel copies copy_words words of 4 bytes to the host.
  const std::int32_t* copy_from;
  std::int32_t* copy_to;
  int copy_words;
};

/// Prepares the kernel for blocks with this many bytes of dynamic shared memory. Returns the number
/// of clusters that the device can hold at once, at most kSoloMostClusters, or 0 where it cannot
/// run the kernel, which needs at least two. T is __half or __nv_bfloat16.
template <class T>
int prepare_solo_step(int bytes);
/// Launches the kernel. All clusters must be on the device at once, and one launch must end before
/// the next begins, because clusters wait for each other through SoloSignals.
template <class T>
void run_solo_step(const SoloArgs&, int clusters, cudaStream_t);

/// This says how a weight [rows, columns] of 16-bit elements is packed. The slices of the blocks
/// follow one another. A slice consists of rounds, and a round of boxes of 64 columns, swizzled as
/// in hopper.cuh. What is outside of the weight is zero. A block thus reads its weights in the
/// order of memory, and in large copies (docs/benchmarks-history.md, One sentence at a time).
struct SoloPacking {
  int rows, columns;
  std::int64_t stride;
  // A slice has `slice_rows` rows and a round `round_rows`, both multiples of 16.
  int slice_rows, round_rows;
  int slices() const { return (rows + slice_rows - 1) / slice_rows; }
  int rounds() const { return (slice_rows + round_rows - 1) / round_rows; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(slices()) * static_cast<std::size_t>(rounds()) *
           static_cast<std::size_t>(round_rows) * static_cast<std::size_t>(columns) * 2;
  }
};
/// Writes the packed copy of a weight, packing.bytes() bytes.
void pack_solo_weight(const SoloPacking&, const void* weight, void* packed, cudaStream_t);

}  // namespace xlate::cuda
