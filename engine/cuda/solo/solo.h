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
// At most this many clusters run a narrow network. The first one computes the layers, the others
// compute the vocabulary.
inline constexpr int kSoloMostClusters = 9;
// A cluster has this many blocks. That of a wide network has fewer: an H200 holds 7 clusters of 16
// blocks, and 15 of 8.
inline constexpr int kSoloCluster = 16, kSoloWideCluster = 8;
// This many warps of a block compute. One more warp loads weights.
inline constexpr int kSoloWarps = 8;
// A warp computes this many outputs of a product at once.
inline constexpr int kSoloTileOutputs = 16;
// At most this many blocks compute the vocabulary.
inline constexpr int kSoloMostVocabularyBlocks = (kSoloMostClusters - 1) * kSoloCluster;
// This many bytes lie behind each row in shared memory, so that reading eight rows at once meets no
// bank conflicts.
inline constexpr int kSoloGap = 16;
// A stage of the ring through which a block's weights pass has this many bytes.
inline constexpr int kSoloStageBytes = 16384;
// A stage holds this many boxes of each tile, or one. With SoloArgs::any it may also hold half as
// many. In a wide network it may hold kSoloMostStageBoxes, or any smaller even number.
inline constexpr int kSoloStageBoxes = 4, kSoloMostStageBoxes = 8;
inline constexpr int kSoloLeastStages = 4, kSoloMostStages = 13;
// The exponentials of this many ids of the vocabulary are summed together (vocabulary/project.cu).
inline constexpr int kSoloTileIds = 128;
// A launch runs at most this many steps.
inline constexpr int kSoloMostSteps = 200;
// Clusters send each other rows through so many areas of global memory in turns (SoloPost).
inline constexpr int kSoloAreas = 4;

/// These are rows of which each block that computes layers has a copy in its shared memory, or just
/// the columns that it reads. They are of T unless said otherwise. `at` is the offset of the first
/// row and `pitch` the distance to the next one, both in bytes. A pitch of 0 means that there are
/// no rows.
struct SoloRows {
  int at, pitch;
};

enum class SoloKind : int { kNorm, kLinear, kSelf, kCross };

/// This says what a product makes of its sums.
enum class SoloOut : int {
  // They are rounded to T.
  kRounded,
  // They stay in float32 because a norm reads them.
  kFloat32,
  // The weight is that of a gated feed-forward layer. It has twice as many outputs as out has
  // columns. The activated first half of the outputs is multiplied with the second half.
  kGated
};

/// This is one operation on rows. What it does not use is 0 or null.
struct alignas(16) SoloOp {
  SoloKind kind;
  Activation activation;
  // In attention, a row of x is the query, in self-attention followed by the key and the value of
  // the new token. In a norm, x is float32. It is added to the residual, or there is no x and
  // nothing is added.
  SoloRows x, residual, out;
  // Only norms have low bits, which are int8. A norm of a stream without low bits has none.
  SoloRows residual_low_bits, out_low_bits;
  // These belong to a norm and are not 0 where it is an RMS norm, and where it stores the sum of x
  // and the residual in place of the residual.
  int rms, stores_sum;
  SoloOut out_kind;
  // x has `in` columns, and out has `width`.
  int in, width;
  // A product has `tiles` tiles of 16 outputs. A block writes into its copy of the operation which
  // ones it has: `tile_count`, from `first_tile` on. A tile of a gated product has 8 outputs of the
  // first half, and behind them the 8 outputs of the second half that they are multiplied with.
  int tiles, first_tile, tile_count;
  // A block computes this many tiles in one round, each by a warp.
  int round_tiles;
  // A tile has a box for 64 columns of x. A stage has `stage_boxes` of each tile of a round.
  int stage_boxes;
  // A round has this many stages.
  int stages;
  // When this operation is done, the gain or the keys of operation `next` may be fetched. −1 means
  // that there is none.
  int next;
  // A block has this many rounds.
  int rounds;
  // Where only attention reads out, so that a block needs only its head's columns, these are the
  // parts of out that have a head, queries, keys and values. Otherwise it is 0.
  int for_heads;
  // The block's slice of the bias is at this offset in its shared memory.
  int biases;
  // A norm has an epsilon. In an attention, scores are products times `scale`, where 0 stands for
  // 1/√head, whose factor the kernels have built in.
  union {
    float epsilon, scale;
  };
  // The packed weight of a product (SoloPacking), the gain of a norm, and the pages of the cache of
  // an attention's layer share a word.
  union {
    const void* weight;
    const float* gain;  // [width]
    void* pages;
  };
  // The bias of a product and the shift of a norm share a word. Either may be null.
  union {
    const void* bias;    // T [outputs]
    const float* shift;  // [width]
  };
};

/// This is the layout of a block's shared memory, which begins with the ring. Fields are offsets in
/// bytes unless said otherwise.
struct SoloLayout {
  // These fields are for blocks that compute layers. `stages` is a number. `held_keys` is the
  // number of keys that a block holds at once, a multiple of a tile's. `key_pitch` is the distance
  // from a key to the next in bytes. `norm_floats` is the number of floats of a norm, which are its
  // gain and, where there are any, its shift.
  int stages, ops, norm, norm_floats, self_keys, cross_keys, held_keys, key_pitch, list_rows,
      list_beam_masks, list_biases, source_rows;
  // During the search, candidates and the SlotState are here, in place of rows.
  int best;
  // These fields are for the blocks of the vocabulary. `vocabulary_stages` is a number, and
  // `slice_tiles` is the largest number of tiles that a block has.
  int vocabulary_stages, hidden, logits, never, best_of_tiles, slice_tiles;
  // Every block has this much dynamic shared memory.
  int bytes;
};

/// In a wide network, the outputs of products and attentions and the outcome of a step of search
/// reach all clusters through words in global memory. A word has 4 bytes of data and a flag, which
/// is written with them and says for which exchange they are. Whoever waits for data thus reads the
/// data themselves, and neither fences nor counters are needed (the protocol LL of NCCL). The words
/// of an exchange are in one of kSoloAreas areas: those of a row follow those of the row before it,
/// and a word has one output in float32, or two in 16 bits.
struct SoloPost {
  // Each of kSoloAreas areas has `area` words. Behind them are the words of a SoloStepResult.
  std::uint64_t* words;
  int area;
  // This is the flag of the first exchange of a launch. Each exchange has the next one.
  unsigned flag;
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
  // Queries have this many columns, which is H times the width of a head and need not be D.
  int attention_width;
  // Head h is computed by block h·head_stride.
  int head_stride;
  // This many blocks, the first ones, compute the layers. Each of them has a slice of every product
  // and computes all norms.
  int layer_blocks;
  // This is 0 where these blocks are one cluster and send each other what they compute, and 1 where
  // they are several clusters of kSoloWideCluster blocks and post it (SoloPost).
  int wide;
  SoloLayout layout;
  // The next fields are for the embedding of the last tokens.
  const void* table;       // T [V, D]
  const float* positions;  // [P, D], or null with `any`
  std::int64_t table_stride, positions_stride;
  float scale;
  // The embedding writes `embedded` and `embedded_low_bits`. The vocabulary product reads `hidden`.
  SoloRows embedded, embedded_low_bits, hidden;
  // These are the first operations of their kinds, or −1.
  int first_norm, first_self, first_cross;
  // This is 1 if the step needs the instance of the kernel that supports whatever the compiler
  // accepts. It is 0 if the other instance is enough, which does no work for other families than
  // MarianMT. That one knows only embeddings with positions, layer norms with a shift behind an
  // addition, products without a gate, and scores times 1/√head without a bias.
  int any;
  CacheView self, cross;
  const std::int32_t* source_lengths;
  // All layers of self-attention have this distance bias (Attention::distance_bias in
  // engine/layers.h), [H, 2·distances + 1], or it is null.
  const float* distance_bias;
  int distances;
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
  SoloPost post;
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

/// This is how many blocks a device holds at once.
struct SoloRoom {
  // They are in clusters of kSoloCluster, of which there are at most kSoloMostClusters, or in
  // clusters of kSoloWideCluster.
  int narrow_blocks, wide_blocks;
};
/// Prepares the kernel for blocks with this many bytes of dynamic shared memory. Returns what the
/// device can hold at once. Both numbers are 0 where it cannot run the kernel, which needs at least
/// 2 · kSoloCluster blocks of either kind. T is __half or __nv_bfloat16.
template <class T>
SoloRoom prepare_solo_step(int bytes);
/// Launches the kernel. All blocks must be on the device at once, and one launch must end before
/// the next begins, because blocks wait for each other.
template <class T>
void run_solo_step(const SoloArgs&, int blocks, cudaStream_t);

/// Returns the first of so many tiles that this one of so many slices has. Slices differ by a tile
/// at most.
__host__ __device__ constexpr int first_tile_of(int slice, int tiles, int slices) {
  return static_cast<int>(static_cast<std::int64_t>(slice) * tiles / slices);
}

/// Returns how many tiles a slice has at most.
constexpr int most_tiles_of(int tiles, int slices) { return (tiles + slices - 1) / slices; }

/// This says how a weight [rows, columns] of 16-bit elements is packed. The slices of the blocks
/// follow one another. A slice consists of rounds, a round of stages, and a stage of `stage_boxes`
/// boxes of 64 columns of each tile of 16 rows, swizzled as in hopper.cuh. What is outside of the
/// weight is zero. A block thus reads its weights in the order of memory, and in large copies
/// (docs/benchmarks-history.md, One sentence at a time).
struct SoloPacking {
  int rows = 0, columns = 0;
  std::int64_t stride = 0;
  // The weight has `tiles` tiles, which `slices` slices have (first_tile_of).
  int tiles, slices;
  // A slice has `slice_tiles` tiles at most, and a round has `round_tiles`.
  int slice_tiles, round_tiles;
  int stage_boxes;
  // The rows of the two halves of the weight are interleaved, always 8 of the first half and the
  // same 8 of the second half (SoloOut::kGated).
  bool gated = false;
  int rounds() const { return (slice_tiles + round_tiles - 1) / round_tiles; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(slices) * static_cast<std::size_t>(rounds()) *
           static_cast<std::size_t>(round_tiles * kSoloTileOutputs) *
           static_cast<std::size_t>(columns) * 2;
  }
};
/// Writes the packed copy of a weight, packing.bytes() bytes.
void pack_solo_weight(const SoloPacking&, const void* weight, void* packed, cudaStream_t);

}  // namespace xlate::cuda
