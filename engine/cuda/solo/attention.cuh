// A lone sentence's attention: a block has a head, and one of its warps the hypotheses of the
// sentence (attention/beam_tile.cuh). Keys of earlier steps are brought to shared memory while
// other operations run; where they do not all fit, the rest follows chunk by chunk.
#pragma once

#include "engine/cuda/attention/beam_tile.cuh"
#include "engine/cuda/attention/key_lists.cuh"
#include "engine/cuda/solo/layers.cuh"

namespace xlate::cuda {

constexpr int kListWarp = kSoloWarps - 1;

// The keys of an attention: of self-attention those of a list, the hypotheses' own at its end; of
// cross-attention the source's.
struct SoloKeys {
  const int* rows;                // of the cache
  const std::uint8_t* beam_mask;  // of whole tiles; null: all see all
  int cached, all;                // in number
  char* held;                     // a chunk of them, key and value behind one another
};
__device__ __forceinline__ SoloKeys keys_of(const SoloArgs& args, bool self, int list_count,
                                            int source_length, char* memory) {
  const SoloLayout& layout = args.layout;
  return {reinterpret_cast<const int*>(memory + (self ? layout.list_rows : layout.source_rows)),
          self ? reinterpret_cast<const std::uint8_t*>(memory + layout.list_beam_masks) : nullptr,
          self ? list_count : source_length, self ? list_count + args.beams : source_length,
          memory + (self ? layout.self_keys : layout.cross_keys)};
}

// Fetches the cached keys from `first` on that a chunk has, of this block's head, by `threads`
// threads.
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
    copy_async(keys.held + key * args.layout.key_pitch + (half * kHalf + vector) * 16,
               pages + (static_cast<std::int64_t>(keys.rows[first + key]) * 2 + half) * args.width +
                   vector * 8);
  }
}

// Where the keys of this step lie, as build_key_lists (attention/key_lists.cu) has them. By a warp.
__device__ inline void list_step(const SoloArgs& args, SoloBlock& block, char* memory, int slot) {
  const int beams = args.beams, length = block.step_result.length, lane = threadIdx.x % kWarp;
  auto* rows = reinterpret_cast<int*>(memory + args.layout.list_rows);
  auto* beam_mask = reinterpret_cast<std::uint8_t*>(memory + args.layout.list_beam_masks);
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
      });
  if (lane < beams + kTileKeys)
    beam_mask[count + lane] = lane < beams ? static_cast<std::uint8_t>(1u << lane) : 0;
  if (lane == 0)
    block.list_count = count,
    block.new_key_row = static_cast<int>(cache_row(args.self, slot, length, 0));
  __syncwarp();
}
__device__ inline void list_source(const SoloArgs& args, char* memory, int slot,
                                   int source_length) {
  auto* rows = reinterpret_cast<int*>(memory + args.layout.source_rows);
  for (int t = threadIdx.x; t < source_length; t += kSoloThreads)
    rows[t] = static_cast<int>(cache_row(args.cross, slot, t, 0));
}

// The hypotheses' own keys and values, in pieces of 16 bytes, by a warp: put(hypothesis, half,
// column, piece).
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
            (1 + half) * args.width + head * kHead + column));
  }
}
// To the cache.
template <class T, int kHead>
__device__ __forceinline__ void store_new_keys(const SoloArgs& args, const SoloOp& op,
                                               int new_key_row, int head, const char* memory) {
  T* pages = static_cast<T*>(op.pages) + head * kHead;
  each_new_key<T, kHead>(
      args, op, head, memory, [&](int beam, int half, int column, const uint4& vector) {
        *reinterpret_cast<uint4*>(
            pages + (static_cast<std::int64_t>(new_key_row + beam) * 2 + half) * args.width +
            column) = vector;
      });
}

// One warp: this block's head, to all blocks. The first chunk's cached keys have come.
template <class T, int kHead>
__device__ __forceinline__ void attend_head(const SoloArgs& args, const SoloOp& op,
                                            const SoloKeys& keys, int head, char* memory,
                                            const Exchange& exchange) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4, beams = args.beams,
            held = args.layout.held_keys;
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
    if (keys.beam_mask) {  // the hypotheses' own are the last ones
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
    const auto at = [&](int e, int half) {  // behind the last one any that can be read
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
      tile.add(key, beam_mask, value);
    }
  }
  T* out = reinterpret_cast<T*>(memory + op.out.at) + head * kHead;
  tile.end(out, op.out.pitch / static_cast<int>(sizeof(T)), beams);
  __syncwarp();
  constexpr int kVectors = kHead * static_cast<int>(sizeof(T)) / 16;
#pragma unroll 4
  for (int i = lane; i < beams * kVectors * kSoloCluster; i += kWarp) {
    const int vector = i / kSoloCluster,
              place = vector / kVectors * op.out.pitch + vector % kVectors * 16;
    const char* from = reinterpret_cast<const char*>(out) + place;
    exchange.send_one(shared_address(from), *reinterpret_cast<const uint4*>(from));
  }
}

}  // namespace xlate::cuda
