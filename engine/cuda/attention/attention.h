// The launchers of attention: self-attention within packed sentences, and self-attention and
// cross-attention of a decoding step over the paged key-value caches. The kernels sum in float32.
// Letters are those of engine/backend.h.
#pragma once

#include "engine/cuda/views.h"
#include "engine/head_set.h"

namespace xlate::cuda {

/// The operands that all kinds of attention have.
template <class T>
struct AttendArgs {
  // [rows, query_stride]. A row begins with its query, of D = heads·head elements. In
  // self-attention, also of packed sentences, its key and its value follow, of `key_width` elements
  // each.
  const T* query;
  T* out;                                        // [rows, D]
  std::int64_t query_stride, out_stride, width;  // The width is D.
  int heads;
  float scale;  // It multiplies the scores.
  // [heads, 2·distances + 1] or null. Column distances + d has the bias of a key that stands d
  // positions after the query (Attention::distance_bias in engine/layers.h).
  const float* distance_bias;
  int distances;
  // The rest is only for the general kernels (rows.cu, packed.cu). See Attention in
  // engine/layers.h.
  int group;               // Attention::group()
  std::int64_t key_width;  // D / group
  float softcap;
  std::int64_t window;
  const float* slopes;  // [heads] or null
};

/// Returns whether attention has only what every kernel computes: all queries see all keys, as many
/// heads of keys as of queries, and at most a distance bias.
template <class T>
bool plain(const AttendArgs<T>& args) {
  return args.group == 1 && args.softcap == 0 && args.window == 0 && !args.slopes;
}

/// Views the keys of a layer's prompts (PagedCaches::shared).
struct SharedKeys {
  CacheView cache;
  // [S], the number of these keys of each slot. It is null if there are no prompts.
  const std::int32_t* lengths;
};

/// Returns whether a scale of scores is 1/√head. The kernels on tensor cores have instances with
/// this scale built in.
inline bool usual_scale(float scale, std::int64_t head) {
  const float squared = scale * scale * static_cast<float>(head);
  return squared > 0.999999f && squared < 1.000001f;
}

/// Computes plain self-attention within packed sentences. Sentence b is rows [offsets[b], offsets[b
/// + 1]).
template <class T>
void attend_packed(const AttendArgs<T>&, const std::int32_t* offsets, std::int64_t sentences,
                   std::int64_t rows, cudaStream_t);

/// Views the keys of packed prompts. A row of the batch has its key and then its value.
template <class T>
struct PromptKeys {
  const T* rows;  // [first + rows of the pass, stride]
  std::int64_t stride;
  std::int64_t first;  // the row of the batch with which the pass begins
};
/// Computes the attention of a pass of `rows` rows over packed prompts to the keys before them and
/// their own. Prompt b is rows [offsets[b], offsets[b + 1]) of the batch. The queries are those of
/// the pass. The result of a row is the same in every pass.
template <class T>
void attend_prompts(const AttendArgs<T>&, const PromptKeys<T>&, const std::int32_t* offsets,
                    std::int64_t prompts, std::int64_t rows, cudaStream_t);

/// Computes the cross-attention of a pass over packed sentences to the rows of their sources in
/// `keys`. The source of sentence b is rows [source_offsets[b], source_offsets[b + 1]).
/// PromptKeys::first is the row of the batch of sentences with which the pass begins.
template <class T>
void attend_packed_sources(const AttendArgs<T>&, const PromptKeys<T>& keys,
                           const std::int32_t* offsets, const std::int32_t* source_offsets,
                           std::int64_t sentences, std::int64_t rows, cudaStream_t);

/// Finds the key with the largest mean weight over `heads` in the attention of
/// attend_packed_sources(), and writes its number in its source to out[row]. The first key of
/// equal weights wins.
template <class T>
void align(const AttendArgs<T>&, const PromptKeys<T>& keys, const std::int32_t* offsets,
           const std::int32_t* source_offsets, std::int64_t sentences, std::int64_t rows,
           const HeadSet& heads, std::int32_t* out, cudaStream_t);

/// The largest number of beams in a beam tile, whose attention a warp computes at once. A sentence
/// with more beams has several beam tiles.
constexpr int kTileBeams = 8;
/// The number of keys that attention on tensor cores processes at once.
constexpr int kTileKeys = 16;
/// An entry of a key list: a key to which at least one beam of the beam tile attends.
struct KeyEntry {
  std::int32_t row;  // The row of the cache that holds the key and its value.
  // Bit k of the lowest kTileBeams bits says whether beam k of the beam tile attends to the key. In
  // self-attention the bits above them count the positions from the key to the query. All beams of
  // a sentence stand at the same position.
  std::uint32_t beam_mask;
};
/// The key lists of a decoding step, one for each beam tile.
struct KeyLists {
  // [beam tiles]. The first number is the length of the list. In self-attention the second one is
  // the cache row of the key that the first beam of the tile adds in this step.
  int2* headers;
  KeyEntry* entries;  // [beam tiles, stride]
  std::int64_t stride;
  // [launches]. For each launch of the streaming kernel in the step, the number of beam tiles that
  // its blocks have taken, without the one that each block begins with. build_key_lists sets them
  // to zero. A launch uses the counter that `taken` points to, and the caller moves the pointer on
  // from one launch to the next.
  int* taken;
  int launches;  // The number of counters from `taken` on.
};
/// Returns the number of beam tiles of this many row groups.
std::int64_t key_list_count(std::int64_t groups, std::int64_t beams);
/// Returns the stride of lists over this many positions. It is at least a warp's 32 entries.
std::int64_t key_list_stride(std::int64_t positions, std::int64_t beams);
/// Writes the key lists of a decoding step and zeroes the counters of its launches. It runs once a
/// step: the self caches of all layers share one page table, and so do the cross caches.
void build_key_lists(const CacheView& self, const CacheView& cross,
                     const std::int32_t* source_lengths, const SearchState&, const StepRows&,
                     const KeyLists& self_lists, const KeyLists& cross_lists, cudaStream_t);

/// The kernel that computed an attention: kStream is stream.cu, kTiles the kernel on tensor cores
/// of step.cu, and kRowByRow the general one of rows.cu.
enum class AttentionKernel : std::uint8_t { kStream, kTiles, kRowByRow };
/// Computes one layer's self-attention of a decoding step, and writes the new keys and values into
/// the cache. It chooses the fastest kernel that fits and returns which one it was.
template <class T>
AttentionKernel attend_self(const AttendArgs<T>&, const CacheView&, const SearchState&,
                            const StepRows&, const KeyLists&, cudaStream_t);
/// Computes one layer's cross-attention of a decoding step, and chooses a kernel likewise.
template <class T>
AttentionKernel attend_cross(const AttendArgs<T>&, const CacheView&,
                             const std::int32_t* source_lengths, const StepRows&, const KeyLists&,
                             cudaStream_t);
/// Launches the streaming kernel (stream.cu) for self-attention if the device and the shapes allow
/// it, and returns whether it did. T is a 16-bit type.
template <class T>
bool stream_self(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&,
                 cudaStream_t);
/// Does the same for cross-attention.
template <class T>
bool stream_cross(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&,
                  cudaStream_t);
/// Computes self-attention with the general kernels (rows.cu), for every type, for heads of up to
/// 256 columns, and after keys of prompts.
template <class T>
void attend_self_rows(const AttendArgs<T>&, const CacheView&, const SharedKeys&, const SearchState&,
                      const StepRows&, cudaStream_t);
/// Computes cross-attention with the general kernel.
template <class T>
void attend_cross_rows(const AttendArgs<T>&, const CacheView&, const std::int32_t* source_lengths,
                       const StepRows&, cudaStream_t);

/// Has the heads of queries and keys, which transform_heads changes in place (HeadTransform in
/// engine/layers.h).
template <class T>
struct HeadArgs {
  T* queries_keys;  // [rows, stride]. A row begins with the queries, and the keys follow.
  std::int64_t rows, stride;
  int heads, key_heads, head;  // A head has at most 256 columns.
  // [head] or null
  const float *query_gain, *query_shift, *key_gain, *key_shift;
  float epsilon;
  bool rms;
  const float* rates;  // [pairs]
  int pairs;           // It is 0 if nothing is rotated.
};
/// Transforms packed rows, which stand at positions[i].
template <class T>
void transform_heads(const HeadArgs<T>&, const std::int32_t* positions, cudaStream_t);
/// Transforms the rows of a decoding step. `before` has the number of tokens before the start token
/// of each slot, or is null.
template <class T>
void transform_heads(const HeadArgs<T>&, const SearchState&, const StepRows&,
                     const std::int32_t* before, cudaStream_t);

/// Copies one layer's source keys and values to its pages. Row i of keys_values [N, stride] begins
/// with the key and the value, of `width` = 2·D elements together, of position positions[i] in slot
/// token_slots[i].
template <class T>
void store_keys(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width,
                const std::int32_t* token_slots, const std::int32_t* positions, const CacheView&,
                cudaStream_t);

}  // namespace xlate::cuda
