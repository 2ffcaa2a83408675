// This file has the words in global memory through which clusters that compute layers send each
// other outputs of products, and the outcome of a step (SoloPost).
#pragma once

#include "engine/cuda/solo/block.cuh"

namespace xlate::cuda {

// Writes a word of SoloPost, and reads one. Its data and its flag are written and read together.
__device__ __forceinline__ void post_word(std::uint64_t* to, std::uint32_t data, unsigned flag) {
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to),
               "l"(static_cast<std::uint64_t>(flag) << 32 | data)
               : "memory");
}
__device__ __forceinline__ std::uint64_t posted_word(const std::uint64_t* from) {
  std::uint64_t word;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
  return word;
}
__device__ __forceinline__ bool has_flag(std::uint64_t word, unsigned flag) {
  return static_cast<unsigned>(word >> 32) == flag;
}
// Does the same for two words that follow each other.
__device__ __forceinline__ void post_words(std::uint64_t* to, std::uint32_t first,
                                           std::uint32_t second, unsigned flag) {
  const std::uint64_t high = static_cast<std::uint64_t>(flag) << 32;
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(high | first),
               "l"(high | second)
               : "memory");
}
__device__ __forceinline__ ulonglong2 posted_words(const std::uint64_t* from) {
  ulonglong2 words;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(words.x), "=l"(words.y)
               : "l"(from)
               : "memory");
  return words;
}

// This is where a lane posts outputs, or looks for them (SoloPost). Lane 4·g + q has output g of 8
// outputs, of the rows 2q and 2q + 1. It has a word, or for float32 two of them.
struct SoloMailbox {
  std::uint64_t* words;
  int words_each;
  unsigned flag;
  // The lane has rows.
  bool has_rows;
  __device__ SoloMailbox(const SoloArgs& args, const SoloOp& op, const Exchange& exchange) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    words_each = op.out_kind == SoloOut::kFloat32 ? 2 : 1;
    words = args.post.words + exchange.count % kSoloAreas * args.post.area + lane * words_each;
    flag = args.post.flag + exchange.count;
    has_rows = 2 * (lane % 4) < args.beams;
  }
  // The lane's words for the 8 outputs from `column` on begin here.
  __device__ std::uint64_t* at(int column) const { return words + column * 4 * words_each; }
  __device__ void post(int column, std::uint32_t word) const {
    if (has_rows) post_word(at(column), word, flag);
  }
  __device__ void post(int column, float even, float odd) const {
    if (has_rows) post_words(at(column), __float_as_uint(even), __float_as_uint(odd), flag);
  }
  // Returns what is there now. Both words are the same one if there is one.
  __device__ ulonglong2 look(int column) const {
    if (words_each == 2) return posted_words(at(column));
    const std::uint64_t word = posted_word(at(column));
    return {word, word};
  }
  // Returns whether the words of all lanes have come.
  __device__ bool complete(const ulonglong2& there) const {
    return __all_sync(kAllLanes, !has_rows || (has_flag(there.x, flag) && has_flag(there.y, flag)));
  }
};

}  // namespace xlate::cuda
