// This file has the solo kernel's attention. A block computes at most one head, and one of its
// warps attends for all hypotheses (attention/beam_tile.cuh). Keys of earlier steps are copied to
// shared memory while other operations run. Where not all of them fit, the others follow chunk by
// chunk.
#pragma once

#include "engine/cuda/attention/beam_tile.cuh"
#include "engine/cuda/attention/key_lists.cuh"
#include "engine/cuda/solo/mailbox.cuh"

namespace xlate::cuda {

// This warp lists the keys of a step and begins the exchanges of products and attentions. Warp 0
// begins the one of search.
constexpr int kListWarp = kSoloWarps - 1;

// These are the keys of an attention. Self-attention has those of the key list, and behind them the
// new key of each hypothesis. Cross-attention has those of the source.
struct SoloKeys {
  // These are the cache rows of the cached keys.
  const int* rows;
  // Bit k of an entry says that hypothesis k attends to the key. The last tile is filled up with
  // zeros. Null means that all hypotheses attend to all keys.
  const std::uint8_t* beam_mask;
  // These are the numbers of keys in the cache, and of all keys.
  int cached, all;
  // A chunk of the keys is copied to here, each key with its value behind it.
  char* held;
};
__device__ __forceinline__ SoloKeys keys_of(const SoloArgs& args, bool self, int list_count,
                                            int source_length, char* memory) {
  const SoloLayout& layout = args.layout;
  return {reinterpret_cast<const int*>(memory + (self ? layout.list_rows : layout.source_rows)),
          self ? reinterpret_cast<const std::uint8_t*>(memory + layout.list_beam_masks) : nullptr,
          self ? list_count : source_length, self ? list_count + args.beams : source_length,
          memory + (self ? layout.self_keys : layout.cross_keys)};
}

// Starts copying a chunk of this block's head: the cached keys from `first` on, with their values.
// `threads` threads call it.
template <class T, int kHead>
__device__ __forceinline__ void fetch_keys(const SoloArgs& args, const SoloOp& op,
                                           const SoloKeys& keys, int first, int head, int thread,
                                           int threads) {
  constexpr int kHalf = kHead / 8;
  const T* pages = static_cast<const T*>(op.pages) + head * kHead;
  const int count = min(keys.cached - first, args.layout.held_keys);
#pragma unroll 1
  for (int i = thread; i < count * 2 * kHalf; i += threads) {
    const int key = i / (2 * kHalf), half = i / kHalf % 2, vector = i % kHalf;
    copy_async(
        keys.held + key * args.layout.key_pitch + (half * kHalf + vector) * 16,
        pages +
            (static_cast<std::int64_t>(keys.rows[first + key]) * 2 + half) * args.attention_width +
            vector * 8);
  }
}

// Returns the step's distance bias as attention (HeadBias) takes it.
template <class T>
__device__ __forceinline__ AttendArgs<T> distances_of(const SoloArgs& args) {
  AttendArgs<T> attended{};
  attended.distance_bias = args.distance_bias, attended.distances = args.distances;
  return attended;
}

// Lists the cache rows of self-attention's keys in this step, in the order of build_key_lists
// (attention/key_lists.cu). With kAny it also lists the biases of this block's head where there is
// a distance bias. One warp calls it.
template <class T, bool kAny>
__device__ inline void list_step(const SoloArgs& args, SoloBlock& block, char* memory, int slot,
                                 int head) {
  const int beams = args.beams, length = block.step_result.length, lane = threadIdx.x % kWarp;
  auto* rows = reinterpret_cast<int*>(memory + args.layout.list_rows);
  auto* beam_mask = reinterpret_cast<std::uint8_t*>(memory + args.layout.list_beam_masks);
  auto* biases = reinterpret_cast<float*>(memory + args.layout.list_biases);
  const HeadBias bias(distances_of<T>(args), head);
  const std::uint8_t* ancestors =
      args.state.ancestor + static_cast<std::int64_t>(slot) * args.state.longest * beams;
  const int count = list_distinct_keys(
      length, beams,
      [&](int t, int k) {
        return static_cast<int>(__ldcg(ancestors + static_cast<std::int64_t>(t) * beams + k));
      },
      [&](int place, int t, int ancestor, unsigned mask) {
        rows[place] = static_cast<int>(cache_row(args.self, slot, t, ancestor));
        beam_mask[place] = static_cast<std::uint8_t>(mask);
        if (kAny && bias.middle) biases[place] = bias.of(t - length) * kLog2OfE;
      });
  if (lane < beams + kTileKeys) {
    beam_mask[count + lane] = lane < beams ? static_cast<std::uint8_t>(1u << lane) : 0;
    if (kAny && bias.middle) biases[count + lane] = bias.of(0) * kLog2OfE;
  }
  if (lane == 0)
    block.list_count = count,
    block.new_key_row = static_cast<int>(cache_row(args.self, slot, length, 0));
  __syncwarp();
}
// Lists the cache rows of the source's keys.
__device__ inline void list_source(const SoloArgs& args, char* memory, int slot,
                                   int source_length) {
  auto* rows = reinterpret_cast<int*>(memory + args.layout.source_rows);
  for (int t = threadIdx.x; t < source_length; t += kSoloThreads)
    rows[t] = static_cast<int>(cache_row(args.cross, slot, t, 0));
}

// Calls put(hypothesis, half, column, vector) for each vector of the hypotheses' new keys (half 0)
// and values (half 1) of a head. One warp calls it.
template <class T, int kHead, class Put>
__device__ __forceinline__ void each_new_key(const SoloArgs& args, const SoloOp& op, int head,
                                             const char* memory, const Put& put) {
  constexpr int kHalf = kHead / 8;
#pragma unroll 1
  for (int i = threadIdx.x % kWarp; i < args.beams * 2 * kHalf; i += kWarp) {
    const int beam = i / (2 * kHalf), half = i / kHalf % 2, column = i % kHalf * 8;
    put(beam, half, column,
        *reinterpret_cast<const uint4*>(
            reinterpret_cast<const T*>(memory + op.x.at + beam * op.x.pitch) +
            (1 + half) * args.attention_width + head * kHead + column));
  }
}
// Writes the new keys and values of a head to the cache.
template <class T, int kHead>
__device__ __forceinline__ void store_new_keys(const SoloArgs& args, const SoloOp& op,
                                               int new_key_row, int head, const char* memory) {
  T* pages = static_cast<T*>(op.pages) + head * kHead;
  each_new_key<T, kHead>(
      args, op, head, memory, [&](int beam, int half, int column, const uint4& vector) {
        *reinterpret_cast<uint4*>(pages +
                                  (static_cast<std::int64_t>(new_key_row + beam) * 2 + half) *
                                      args.attention_width +
                                  column) = vector;
      });
}

// Makes the scores of a tile's keys with any scale and bias, as AnyScores (attention/beam_tile.cuh)
// does. Without a bias and with the usual factor the scores have the bits of UsualScores.
struct SoloScores {
  float factor, bias[2];
  __device__ float operator()(float product, int key) const {
    return fmaf(product, factor, bias[key]);
  }
};

// Computes this block's head. One warp calls it, after the cached keys of the first chunk have been
// copied.
template <class T, int kHead, bool kAny>
__device__ __forceinline__ void attend_head(const SoloArgs& args, const SoloOp& op,
                                            const SoloKeys& keys, int head, char* memory) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4, beams = args.beams,
            held = args.layout.held_keys;
  const float* biases = kAny && keys.beam_mask && args.distance_bias
                            ? reinterpret_cast<const float*>(memory + args.layout.list_biases)
                            : nullptr;
  const float factor = kAny && op.scale != 0.0f ? op.scale * kLog2OfE : usual_score<kHead>(1.0f);
  BeamTile<T, kHead> tile;
  tile.begin(g < beams
                 ? reinterpret_cast<const T*>(memory + op.x.at + g * op.x.pitch) + head * kHead
                 : nullptr);
#pragma unroll 1
  for (int first = 0; first < keys.all; first += held) {
    if (first > 0) {
      __syncwarp();
      fetch_keys<T, kHead>(args, op, keys, first, head, lane, kWarp);
      wait_fetched();
      __syncwarp();
    }
    // In self-attention the last keys are the new ones, which are copied from x.
    if (keys.beam_mask) {
      each_new_key<T, kHead>(
          args, op, head, memory, [&](int beam, int half, int column, const uint4& vector) {
            const int place = keys.cached + beam - first;
            if (place >= 0 && place < held)
              *reinterpret_cast<uint4*>(keys.held + place * args.layout.key_pitch +
                                        (half * kHead + column) * 2) = vector;
          });
      __syncwarp();
    }
    const int count = min(keys.all - first, held);
    // A tile may be longer than the chunk. Behind the chunk's end the last key is read again, and
    // no hypothesis attends to it.
    const auto at = [&](int e, int half) {
      return reinterpret_cast<const T*>(keys.held + min(e, count - 1) * args.layout.key_pitch) +
             half * kHead;
    };
    const auto beam_mask_of = [&](int e) -> unsigned {
      return keys.beam_mask ? keys.beam_mask[first + e] : e < count ? ~0u : 0u;
    };
#pragma unroll 1
    for (int e = 0; e < count; e += kTileKeys) {
      const T* const key[2] = {at(e + g, 0), at(e + g + 8, 0)};
      const unsigned beam_mask[2] = {beam_mask_of(e + g), beam_mask_of(e + g + 8)};
      const T* const value[4] = {at(e + 2 * t, 1), at(e + 2 * t + 1, 1), at(e + 2 * t + 8, 1),
                                 at(e + 2 * t + 9, 1)};
      if constexpr (kAny) {
        const auto bias_of = [&](int i) { return biases ? biases[first + e + i] : 0.0f; };
        tile.add(key, beam_mask, value, SoloScores{factor, {bias_of(g), bias_of(g + 8)}});
      } else {
        tile.add(key, beam_mask, value, UsualScores<kHead>());
      }
    }
  }
  T* out = reinterpret_cast<T*>(memory + op.out.at) + head * kHead;
  tile.end(out, op.out.pitch / static_cast<int>(sizeof(T)), beams);
}
// Sends this block's head to all blocks of the cluster. All threads that compute call it.
template <class T, int kHead>
__device__ __forceinline__ void send_head(const SoloArgs& args, const SoloOp& op, int head,
                                          const char* memory,
                                          const Exchange<kSoloCluster>& exchange) {
  constexpr int kVectors = kHead * static_cast<int>(sizeof(T)) / 16;
  const char* out = memory + op.out.at + head * kHead * static_cast<int>(sizeof(T));
#pragma unroll 1
  for (int i = threadIdx.x; i < args.beams * kVectors * kSoloCluster; i += kSoloThreads) {
    const int vector = i / kSoloCluster;
    const char* from = out + vector / kVectors * op.out.pitch + vector % kVectors * 16;
    exchange.send_one(shared_address(from), *reinterpret_cast<const uint4*>(from));
  }
}

// Posts this block's head. All threads that compute call it.
template <int kHead>
__device__ __forceinline__ void post_head(const SoloArgs& args, const SoloOp& op, int head,
                                          const char* memory, unsigned number) {
  constexpr int kPairs = kHead / 4;
  const SoloMailbox mailbox(args, op, number);
#pragma unroll 1
  for (int i = threadIdx.x; i < args.beams * kPairs; i += kSoloThreads) {
    const int row = i / kPairs, word = head * (kHead / 2) + i % kPairs * 2;
    const uint2 pair =
        *reinterpret_cast<const uint2*>(memory + op.out.at + row * op.out.pitch + 4 * word);
    post_words(mailbox.words + row * mailbox.pitch + word, pair.x, pair.y, mailbox.flag);
  }
}

}  // namespace xlate::cuda
