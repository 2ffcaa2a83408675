// Attention: of packed sentences, and of a decoding step over paged caches.
#pragma once

#include "engine/cuda/views.h"

namespace xlate::cuda {

template <class T>
struct AttendArgs {
  const T* query;  // rows of `query_stride`; of self-attention and packed sentences its keys and
                   // values follow
  T* out;          // [rows, D]
  std::int64_t query_stride, out_stride, width;
  int heads;
};
/// Sentence b is rows [offsets[b], offsets[b + 1]); the longest bounds the grid.
template <class T>
void attend_packed(const AttendArgs<T>&, const std::int32_t* offsets, std::int64_t sentences,
                   std::int64_t rows, cudaStream_t);

/// Up to so many beams of a sentence at a time: a part.
constexpr int kTileBeams = 8;
/// Keys that attention on tensor cores takes at once.
constexpr int kTileKeys = 16;
/// A key that some beams of a part have in their history.
struct KeyEntry {
  std::int32_t row;         // of the cache
  std::uint32_t beam_mask;  // bit k: the part's beam k
};
/// Where the keys of a step's rows lie.
struct KeyLists {
  int2* headers;      // [parts] keys, and the cache row of the part's first new one
  KeyEntry* entries;  // [parts, stride]
  std::int64_t stride;
  int* taken;  // [launches] parts that the blocks of a launch have taken beyond their first: zero
               // when the step begins
  int launches;
};
/// Parts of so many row groups, and the stride that lists over so many positions need.
std::int64_t key_list_count(std::int64_t groups, std::int64_t beams);
std::int64_t key_list_stride(std::int64_t positions, std::int64_t beams);
/// Once a step: the lists serve the caches of all layers.
void build_key_lists(const CacheView& self, const CacheView& cross,
                     const std::int32_t* source_lengths, const SearchState&, const StepRows&,
                     const KeyLists& self_lists, const KeyLists& cross_lists, cudaStream_t);

/// Which kernel did it: the stream of rows, tiles on tensor cores, or each row by itself.
enum class AttentionKernel : std::uint8_t { kStream, kTiles, kRowByRow };
template <class T>
AttentionKernel attend_self(const AttendArgs<T>&, const CacheView&, const SearchState&,
                            const StepRows&, const KeyLists&, cudaStream_t);
template <class T>
AttentionKernel attend_cross(const AttendArgs<T>&, const CacheView&,
                             const std::int32_t* source_lengths, const StepRows&, const KeyLists&,
                             cudaStream_t);
/// The same as a stream of rows, where device and shapes allow it; false where not. T is 16-bit.
template <class T>
bool stream_self(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&,
                 cudaStream_t);
template <class T>
bool stream_cross(const AttendArgs<T>&, const CacheView&, const StepRows&, const KeyLists&,
                  cudaStream_t);
/// The same for any type and width.
template <class T>
void attend_self_rows(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&,
                      cudaStream_t);
template <class T>
void attend_cross_rows(const AttendArgs<T>&, const CacheView&, const std::int32_t* source_lengths,
                       const StepRows&, cudaStream_t);

/// One layer's columns of keys_values [N, stride] go to their pages.
template <class T>
void store_cross(const T* keys_values, std::int64_t stride, std::int64_t rows, std::int64_t width,
                 const std::int32_t* token_slots, const std::int32_t* positions, const CacheView&,
                 cudaStream_t);

}  // namespace xlate::cuda
