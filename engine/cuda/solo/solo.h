// The decoding steps of a sentence that is decoded alone as one kernel (step.cu): up to 8
// hypotheses, as far as shared memory holds their rows (SoloCompiler::lay_out), all layers, the
// vocabulary and the search. Weights are there a second time, packed. The same bits as the kernels
// for many sentences: each of them sums in one order, and this one in the same.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/activation.h"
#include "engine/cuda/views.h"

namespace xlate::cuda {

inline constexpr int kSoloRows = 8;  // hypotheses, at most
inline constexpr int kSoloMostClusters = 9;
inline constexpr int kSoloCluster =
    16;  // blocks of a cluster: the first one has the layers, the others have the vocabulary
inline constexpr int kSoloWarps = 8;         // of a block, that compute; one more brings weights
inline constexpr int kSoloTileOutputs = 16;  // of a product, that a warp computes at once
inline constexpr int kSoloGap =
    16;  // bytes behind a row: eight rows read at once meet no bank twice
inline constexpr int kSoloStageBytes = 16384;  // of the ring through which a block's weights come
inline constexpr int kSoloStageBoxes = 4;      // in a stage, or 1
inline constexpr int kSoloLeastStages = 4, kSoloMostStages = 13;
inline constexpr int kSoloTileIds =
    128;  // of the vocabulary, summed as one (vocabulary/project.cu)
inline constexpr int kSoloMostSteps = 200;  // of a launch

/// Rows, of T unless said otherwise, that each block of the first cluster has a copy of: where the
/// first lies in its shared memory, and how far on the next, in bytes.
struct SoloRows {
  int at, pitch;
};

enum class SoloKind : int { kNorm, kLinear, kSelf, kCross };

/// One operation on rows; what an operation does not use is 0 or null.
struct alignas(16) SoloOp {
  SoloKind kind;
  Activation activation;
  SoloRows x, residual,
      out;  // of attention x is the query, keys and values of the new token behind it
  SoloRows residual_low_bits, out_low_bits;  // of a norm, of int8; its x is float
  int float32_out;                           // out is float: a norm reads it
  int in, width;                             // of a row of x, of out
  int tiles, tiles_each;                     // of 16 outputs: in all, of a block at most
  int round_tiles;         // of a block at once: a box of the weight has 16·round_tiles rows
  int boxes, stage_boxes;  // of 64 columns: in all, of a stage
  int stages;              // of a pass
  int next;    // the operation whose gain or keys may be fetched when this one is done; −1: none
  int rounds;  // of a block
  int for_heads;  // out is read by attention alone: each block needs its head's columns only
  int biases;     // where the block's share of the bias lies in its shared memory
  float epsilon;
  const void* weight;  // of kLinear, packed
  const void* bias;    // T [width]; may be null
  const float* gain;   // [width]
  const float* shift;  // [width]
  void* pages;         // of the layer's cache
};

/// Where things lie in a block's shared memory, behind the ring, in bytes.
struct SoloLayout {
  int stages, ops, norm, self_keys, cross_keys, held_keys, key_pitch, list_rows, list_beam_masks,
      source_rows;  // of the first cluster; `held_keys` in number, whole tiles
  int vocabulary_stages, hidden, logits, never,
      slice_tiles;  // of the others; `slice_tiles` in number, at most
  int bytes;
};

/// What clusters tell each other. Zero at first, then the kernel's own.
struct SoloSignals {
  alignas(
      128) unsigned hidden;  // launch << 8 | step, from 1: its hidden rows are there; or kSoloStop
  alignas(128) unsigned blocks_done;  // blocks that have left their parts, ever
};
inline constexpr unsigned kSoloStop = 255;

struct SoloArgs {
  const SoloOp* ops;  // [count]
  int count;
  int beams, width, heads;  // K, D, H
  int head_stride;          // every so many blocks one has a head, in their order
  SoloLayout layout;
  // The token's embedding.
  const void* table;       // T [V, D]
  const float* positions;  // [P, D]
  std::int64_t table_stride, positions_stride;
  float scale;
  SoloRows embedded, embedded_low_bits, hidden;  // rows of the first operation, and of the last
  int first_norm, first_self, first_cross;       // −1: none
  CacheView self, cross;
  const std::int32_t* source_lengths;
  // Search.
  const void* vocabulary_weight;  // packed: a tile as a block's share
  const float* vocabulary_bias;   // [V] or null
  int vocabulary, tiles;          // V, and tiles of it
  int candidates;                 // of a row
  RulesView rules;
  SearchState state;
  const std::int32_t* slots;  // [1]
  void* hidden_rows;          // T [K, D]
  float2* sums;               // [K, tiles] as in RowPartials
  TokenValue* lists;          // [K, blocks of the vocabulary, candidates]
  SoloSignals* signals;
  // Of the launch.
  int times;                      // steps, at most: until the sentence is done
  unsigned launch;                // its number
  const std::int32_t* copy_from;  // at the end: words that go to the host
  std::int32_t* copy_to;
  int copy_words;
};

/// The clusters with so many bytes of shared memory a block that the device can hold at once, at
/// most kSoloMostClusters; 0 where it cannot run the kernel. T is __half or __nv_bfloat16.
template <class T>
int prepare_solo_step(int bytes);
template <class T>
void run_solo_step(const SoloArgs&, int clusters, cudaStream_t);

/// How a weight [rows, columns] of 16-bit elements is packed: the shares of blocks one after
/// another, in each its passes, in each pass boxes of 64 columns, swizzled as hopper.cuh's; what is
/// outside of the weight is zero. So what a block reads next follows what it read, and comes in
/// large pieces (docs/benchmarks.md, One sentence at a time).
struct SoloPacking {
  int rows, columns;
  std::int64_t stride;
  int slice_rows, round_rows;  // of a block, of a pass; multiples of 16
  int slices() const { return (rows + slice_rows - 1) / slice_rows; }
  int rounds() const { return (slice_rows + round_rows - 1) / round_rows; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(slices()) * static_cast<std::size_t>(rounds()) *
           static_cast<std::size_t>(round_rows) * static_cast<std::size_t>(columns) * 2;
  }
};
void pack_solo_weight(const SoloPacking&, const void* weight, void* packed, cudaStream_t);

}  // namespace xlate::cuda
