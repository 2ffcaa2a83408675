// The network on few rows as a list of operations that one kernel works through, all its blocks meeting between one and the next: far
// cheaper than a kernel for each. For one sentence at a time: its tokens in the encoder, its hypotheses in a decoding step. Sums run in
// another order than cuBLASLt's.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/cuda/kernels.h"

namespace xlate::cuda {

inline constexpr int kFewRows = 8;          // at once; of a decoding step at most
inline constexpr int kMostRows = 128;       // of other operations, eight after eight
inline constexpr int kFewOps = 64;          // a longer step takes more than one launch
inline constexpr int kFewBlocks = 256;      // at most
inline constexpr int kFewThreads = 256;
inline constexpr int kFewWarps = kFewThreads / 32, kFewWarpsLog = 3;

enum class FewKind : int { kEmbed, kEmbedStep, kNorm, kLinear, kPacked, kSelf, kCross, kVocabulary, kAdvance };

/// One operation. `in` is the width of x, `out` that of the output; what an operation does not use is 0 or null. T is the program's type.
struct alignas(16) FewOp {
  FewKind kind;
  Act activation;
  int rows, in, out, heads;
  int x_stride, added_stride, normed_stride, weight_stride, residual_stride, out_stride;
  int each_share, longer_shares;  // a block has each_share rows of `out`, the first longer_shares one more
  int slices, slices_each;        // of a row's pieces, four in each; a warp's
  int lanes_log;                  // of attention: lanes that share a key
  int page_log;                   // of the cache: tokens of a page
  int late;                       // normed is what others still read in this operation: it is written in the next one, which does not use it
  int rows_staged;                // of x, in shared memory at once
  float epsilon, scale;
  const void* x;         // T [rows, in]; of attention the queries, keys and values behind them; of embeddings the table
  const void* added;     // T [rows, in], added to x before the norm
  const float* gain;     // [in], of a norm that comes before the product; null: none
  const float* shift;    // [in]
  void* normed;          // T [rows, in]: the norm's result; may be null
  const void* weight;    // T [out, in]
  const void* bias;      // T [out]; of kVocabulary float
  const void* residual;  // T [rows, out]
  void* out_rows;        // T [rows, out]
  CacheView cache;
  const std::int32_t* ids;     // [rows] of kEmbed
  const std::int32_t* places;  // [rows] of kEmbed
  const float* positions;
};

/// An entry of a part's list of the best, and a part's maximum and sum of exponentials relative to it.
struct FewBest {
  float value;
  std::int32_t token;
};
struct FewParts {
  float2* sums;    // [R, blocks]
  FewBest* lists;  // [R, blocks, count], best first
};

struct FewProgram {
  FewOp ops[kFewOps];
  int count;
  int times = 1;  // to run, at most: until all the step's sentences are done
  int first_self, first_cross, vocabulary;  // places of operations; −1: none
  SearchState state;  // empty where no operation needs it
  StepRows rows;
  RulesView rules;
  FewParts parts;
  int count_of_best;
  const std::int32_t* source_lengths;  // of cross-attention
  // Behind the last operation, which is then one sentence's: words that the block copies to the host.
  const std::int32_t* copy_from;
  std::int32_t* copy_to;
  int copy_words;
};

/// What a launch needs of the device. `met` [1] is 0 at first and then the kernel's own.
struct FewDevice {
  int blocks;
  unsigned long long* met;
};

/// Bytes of shared memory that rows of T may take before a product, and the floats for what the blocks' parts leave.
inline constexpr int kFewRowBytes = 36 << 10;
inline constexpr int kFewSums = 8192;
inline constexpr int kFewShare = 1024;  // of the vocabulary, a block, at most

/// Prepares the device for launches; false where it cannot run them.
template <class T>
bool prepare_few_rows(int device, int& blocks);
template <class T>
void run_few_rows(const FewProgram&, const FewDevice&, cudaStream_t);

}  // namespace xlate::cuda
