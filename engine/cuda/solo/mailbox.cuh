// This file has the words in global memory through which the clusters that compute the layers of a
// wide network send each other what they compute (SoloPost).
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

// These are the words of an exchange of an operation's outputs. Exchanges are numbered in a launch.
struct SoloMailbox {
  std::uint64_t* words;
  unsigned flag;
  // A row has this many words.
  int pitch;
  __device__ SoloMailbox(const SoloArgs& args, const SoloOp& op, unsigned number)
      : words(args.post.words + number % kSoloAreas * args.post.area),
        flag(args.post.flag + number),
        pitch(op.out_kind == SoloOut::kFloat32 ? op.width : op.width / 2) {}
  // Posts two outputs in 16 bits of a row, of which the first has this even column.
  __device__ void post(int row, int column, std::uint32_t pair) const {
    post_word(words + row * pitch + column / 2, pair, flag);
  }
  // Posts two outputs in float32.
  __device__ void post(int row, int column, std::uint32_t first, std::uint32_t second) const {
    post_words(words + row * pitch + column, first, second, flag);
  }
  // Returns whether these words have come.
  __device__ bool has(const ulonglong2& there) const {
    return has_flag(there.x, flag) && has_flag(there.y, flag);
  }
};

// Waits for the columns of this block's head of a product that is for_heads, and copies them to the
// block's own rows. All threads that compute call it. A thread copies two words at a time.
template <int kHead>
__device__ __forceinline__ void take_head(const SoloArgs& args, const SoloOp& op, int head,
                                          char* memory, unsigned number) {
  constexpr int kPairs = kHead / 4;
  const SoloMailbox mailbox(args, op, number);
  const int pairs = op.for_heads * kPairs;
#pragma unroll 1
  for (int i = threadIdx.x; i < args.beams * pairs; i += kSoloThreads) {
    const int row = i / pairs, pair = i % pairs,
              word = pair / kPairs * (args.attention_width / 2) + head * (kHead / 2) +
                     pair % kPairs * 2;
    ulonglong2 there;
    do {
      there = posted_words(mailbox.words + row * mailbox.pitch + word);
    } while (!mailbox.has(there));
    *reinterpret_cast<uint2*>(memory + op.out.at + row * op.out.pitch + 4 * word) = {
        static_cast<std::uint32_t>(there.x), static_cast<std::uint32_t>(there.y)};
  }
}

// Waits for a part of the outputs of an operation, which all clusters have posted, and sends it to
// the blocks of this cluster. Each block of it has an equal part of the columns. All threads that
// compute call it. A quad sends four words of a row at a time. It looks for kAhead such vectors at
// once, again and again until all are there.
template <int kBlocks>
__device__ __forceinline__ void forward_outputs(const SoloArgs& args, const SoloOp& op,
                                                std::uint32_t address,
                                                const Exchange<kBlocks>& exchange) {
  constexpr int kAhead = 4, kQuads = kSoloThreads / 4;
  const SoloMailbox mailbox(args, op, exchange.count);
  const int vectors = mailbox.pitch / 4, each = (vectors + kBlocks - 1) / kBlocks,
            start = static_cast<int>(rank_in_cluster()) * each, count = min(each, vectors - start),
            all = args.beams * count;
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x) / 4; first < all; first += kAhead * kQuads) {
    const std::uint64_t* from[kAhead];
    std::uint32_t to[kAhead];
    unsigned left = 0;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = first + j * kQuads, row = i / count, vector = start + i % count;
      if (i < all) left |= 1u << j;
      from[j] = mailbox.words + row * mailbox.pitch + vector * 4;
      to[j] = address + op.out.at + row * op.out.pitch + vector * 16;
    }
#pragma unroll 1
    while (left) {
      ulonglong2 low[kAhead], high[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (left >> j & 1) low[j] = posted_words(from[j]), high[j] = posted_words(from[j] + 2);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (!(left >> j & 1) || !mailbox.has(low[j]) || !mailbox.has(high[j])) continue;
        left &= ~(1u << j);
        exchange.send(
            to[j], {static_cast<std::uint32_t>(low[j].x), static_cast<std::uint32_t>(low[j].y),
                    static_cast<std::uint32_t>(high[j].x), static_cast<std::uint32_t>(high[j].y)});
      }
    }
  }
}

}  // namespace xlate::cuda
