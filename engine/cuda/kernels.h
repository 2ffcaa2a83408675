// The kernels' launchers. They take typed pointers, sizes and strides (in elements), the stream last; they neither allocate, wait, nor
// hold state. T is float, __half or __nv_bfloat16. Letters as in engine/backend.h; a group whose slot is negative is empty.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "engine/change.h"
#include "engine/search_state.h"

namespace xlate::cuda {

/// To 16 bytes, a piece of a row as kernels read and write it.
inline bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

/// Copies from pinned host memory, by a kernel. False where it is not made of aligned 4-byte words.
bool fetch(const void* host, void* device, std::size_t bytes, cudaStream_t);
/// table[place] = value; the changes may lie in pinned host memory.
void change(const Change*, std::int64_t count, std::int32_t* table, cudaStream_t);

enum class Act : int { kNone, kRelu, kSwish, kGelu, kGeluTanh };

/// Rows of the residual stream (WideRows).
template <class T>
struct Wide {
  T* rounded;
  std::conditional_t<std::is_const_v<T>, const std::int8_t, std::int8_t>* rest;  // or null
  std::int64_t stride, rest_stride;
};

/// out[i] = table[ids[i]]·scale + positions[place[i]], N rows of D.
template <class T>
struct EmbedArgs {
  const T* table;              // [V, D]
  const float* positions;      // [P, D]
  const std::int32_t* ids;     // [N]
  const std::int32_t* places;  // [N]
  Wide<T> out;                 // [N, D]
  std::int64_t rows, width, table_stride, positions_stride;
  float scale;
};
template <class T>
void embed(const EmbedArgs<T>&, cudaStream_t);
/// ids and places are the last tokens and lengths of the rows' slots.
template <class T>
void embed_step(const EmbedArgs<T>&, const SearchState&, const StepRows&, cudaStream_t);

/// out = layer norm of x + its bias + residual, in float32. X is T, or float where x is a product that was not rounded.
template <class T, class X = T>
struct NormArgs {
  const X* x;              // [N, D]
  const T* x_bias;         // [D] or null
  Wide<const T> residual;  // [N, D] or null
  const float* gain;       // [D]
  const float* bias;       // [D]
  Wide<T> out;             // [N, D], may be x or the residual
  std::int64_t rows, width, x_stride;
  float epsilon;
};
template <class T, class X>
void layer_norm(const NormArgs<T, X>&, cudaStream_t);

/// out = layer norm of x·Wᵀ + b + residual, on compute capability 9.0 (norms/linear_norm.cu): the bits of a product in float32 and of layer_norm.
template <class T>
struct LinearNormArgs {
  CUtensorMap x;       // [N, depth] of T, in boxes of tile_rows·256/width rows (products/tensor_map.h)
  CUtensorMap weight;  // [width, depth] of T, in boxes of 256 rows
  const T* bias;       // [width] or null
  const T* residual;   // [N, width] …
  const std::int8_t* residual_rest;  // … and its rest
  const float* gain;   // [width]
  const float* shift;  // [width]
  T* out;              // [N, width], may be the residual
  std::int8_t* out_rest;
  int rows, depth, width, tile_rows;
  int residual_stride, out_stride;  // of the rests, too; rows·stride is less than 2³¹
  float epsilon;
};
inline constexpr int kLinearNormOutputs = 256;  // of a block
/// Whether there is a kernel for it, and it is the faster way; `capability` is 10·major + minor of the device.
bool linear_norm_fits(int capability, std::int64_t rows, std::int64_t depth, std::int64_t width);
/// Rows of a tile that make this many rows take the shortest.
int linear_norm_tile(std::int64_t rows, std::int64_t depth, std::int64_t width, int multiprocessors);
/// T is __half or __nv_bfloat16; all is aligned to 16 bytes.
template <class T>
void linear_norm(const LinearNormArgs<T>&, cudaStream_t);

/// out = activation(out) + residual; the residual may be null.
template <class T>
struct FinishArgs {
  const T* residual;  // [N, columns]
  T* out;             // [N, columns]
  std::int64_t rows, columns, residual_stride, out_stride;
  Act activation;
};
template <class T>
void finish_rows(const FinishArgs<T>&, cudaStream_t);

/// A layer's pages (engine/backend.h, PagedCache).
struct CacheView {
  void* pages;  // [pages·page_tokens·lines, 2·D]
  const std::int32_t* table;
  std::int64_t pages_per_slot, page_tokens, lines;
};

template <class T>
struct AttendArgs {
  const T* query;  // rows of `query_stride`; of self-attention and packed sentences its keys and values follow
  T* out;          // [rows, D]
  std::int64_t query_stride, out_stride, width;
  int heads;
};
/// Sentence b is rows [offsets[b], offsets[b + 1]); the longest bounds the grid.
template <class T>
void attend_packed(const AttendArgs<T>&, const std::int32_t* offsets, std::int64_t sentences, std::int64_t rows, cudaStream_t);
/// Up to so many beams of a sentence at a time: a part.
constexpr int kTileBeams = 8;
/// Keys that attention on tensor cores takes at once.
constexpr int kTileKeys = 16;
/// A key that some beams of a part have in their history.
struct KeyEntry {
  std::int32_t row;      // of the cache
  std::uint32_t viewers;  // bit k: the part's beam k
};
/// Where the keys of a step's rows lie.
struct KeyLists {
  int2* heads;          // [parts] keys, and the cache row of the part's first new one
  KeyEntry* entries;    // [parts, stride]
  std::int64_t stride;
  int* taken;           // [launches] parts that the blocks of a launch have taken beyond their first: zero when the step begins
  int launches;
};
/// Parts of so many row groups, and the stride that lists over so many positions need.
std::int64_t key_list_parts(std::int64_t groups, std::int64_t beams);
std::int64_t key_list_stride(std::int64_t positions, std::int64_t beams);
/// Once a step: the lists serve the caches of all layers.
void list_keys(const CacheView& self, const CacheView& cross, const std::int32_t* source_lengths, const SearchState&, const StepRows&,
               const KeyLists& self_lists, const KeyLists& cross_lists, cudaStream_t);
template <class T>
void attend_self(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&, const KeyLists&, cudaStream_t);
template <class T>
void attend_cross(const AttendArgs<T>&, const CacheView&, const std::int32_t* source_lengths, const StepRows&, const KeyLists&, cudaStream_t);
/// The same as a stream of rows, where device and shapes allow it; false where not. T is 16-bit.
template <class T>
bool stream_self(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&, cudaStream_t);
template <class T>
bool stream_cross(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&, cudaStream_t);
/// The same for any type and width.
template <class T>
void attend_self_rows(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&, cudaStream_t);
template <class T>
void attend_cross_rows(const AttendArgs<T>&, const CacheView&, const std::int32_t* source_lengths, const StepRows&, cudaStream_t);

/// One layer's columns of keys_values [N, stride] go to their pages.
template <class T>
void store_cross(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width, const std::int32_t* token_slots,
                 const std::int32_t* positions, const CacheView&, cudaStream_t);

/// The fixed part of SearchRules, as kernels take it.
struct RulesView {
  int beams;
  float length_penalty;
  EarlyStopping early_stopping;
  std::int32_t start, end, forced_first, forced_end;
  bool renormalize;
  const std::int32_t* never_chosen;  // device
  int never_chosen_count;
};

void start_slots(const RulesView&, const std::int32_t* slots, const std::int32_t* limits, std::int64_t count, const SearchState&, cudaStream_t);

/// What a row's pass over its logits leaves.
struct RowCandidates {
  float* values;         // [R, count] log-probabilities, best first; −∞ where there are fewer
  std::int32_t* tokens;  // [R, count]
  int count;
};
/// Log-softmax and the best `count` of rows [first, first + rows): logits [rows, stride], V of them valid; bias may be null.
void select_rows(const float* logits, std::int64_t stride, std::int64_t vocabulary, const float* bias, const RulesView&, std::int64_t first,
                 std::int64_t rows, const RowCandidates&, cudaStream_t);
/// A token and its logit; in order: larger values first, then smaller tokens.
struct TokenValue {
  float value;
  std::int32_t token;
};
/// Rows whose vocabulary was gone through in parts.
constexpr int kMostListParts = 160;
struct RowPartials {
  const float2* sums;       // [R, sum_parts] (x, y): y·2^x is the sum of a part's exponentials; (−∞, 0) of none
  int sum_parts;            // always the same for a vocabulary: they are added in their order
  const TokenValue* lists;  // [R, list_parts, count] each part's best, in order; value −∞ where there are fewer. No token is in two
  int list_parts;           // at most kMostListParts, cut as it suits: the best of all do not depend on it
  int count;                // at least that of the candidates
};
/// Makes them one: values less the log-sum. On compute capability 9.0 it may be launched before the kernel in front of it has ended, where that
/// kernel says so; it waits for all of that kernel's work.
void merge_rows(const RowPartials&, std::int64_t rows, const RowCandidates&, cudaStream_t);

/// The vocabulary product of decoding rows with its log-sum and best candidates, on compute capability 9.0 (vocabulary/project.cu).
struct VocabularyArgs {
  CUtensorMap hidden;  // [R, D] of T (products/tensor_map.h)
  CUtensorMap weight;  // [V, D] of T
  const float* bias;   // [V] or null
  std::int64_t rows, width, vocabulary;
  void* scratch;       // vocabulary_scratch_bytes, aligned to 16; in use until the call's work has ended
};
/// Whether there is a kernel for it; `capability` is 10·major + minor of the device.
bool vocabulary_kernel_fits(int capability, std::int64_t width, std::int64_t vocabulary, int count);
/// Of as many rows or fewer.
std::size_t vocabulary_scratch_bytes(std::int64_t rows, std::int64_t vocabulary, int count);
/// Of the rules: never_chosen and renormalize. T is __half or __nv_bfloat16. A row's candidates have the same bits whatever the other rows.
template <class T>
void project_rows(const VocabularyArgs&, const RulesView&, const RowCandidates&, cudaStream_t);

/// Candidates of each group's hypotheses, selection and bookkeeping (docs/search.md, steps 2 to 5).
void advance_slots(const RulesView&, const RowCandidates&, const StepRows&, const SearchState&, cudaStream_t);
/// Copies what tracing needs of each slot to records of `stride` bytes: int32 count and length, finished [K], history [length, K].
void collect_slots(const std::int32_t* slots, std::int64_t count, const SearchState&, void* records, std::int64_t stride, cudaStream_t);

/// out = in, converted.
template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t);

}  // namespace xlate::cuda
