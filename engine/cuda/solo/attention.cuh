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
  const int* rows;              // of the cache
  const std::uint8_t* viewers;  // of whole tiles; null: all see all
  int cached, all;              // in number
  char* held;                   // a chunk of them, key and value behind one another
};
__device__ __forceinline__ SoloKeys keys_of(const SoloProgram& program, bool self, int list_count,
                                            int source_length, char* memory) {
  const SoloLayout& layout = program.layout;
  return {reinterpret_cast<const int*>(memory + (self ? layout.list_rows : layout.source_rows)),
          self ? reinterpret_cast<const std::uint8_t*>(memory + layout.list_viewers) : nullptr,
          self ? list_count : source_length, self ? list_count + program.beams : source_length,
          memory + (self ? layout.self_keys : layout.cross_keys)};
}

// Fetches the cached keys from `first` on that a chunk has, of this block's head, by `threads`
// threads.
template <class T, int kHead>
__device__ __forceinline__ void fetch_keys(const SoloProgram& program, const SoloOp& op,
                                           const SoloKeys& keys, int first, int head, int thread,
                                           int threads) {
  constexpr int kHalf = kHead / 8;
  const T* pages = static_cast<const T*>(op.pages) + head * kHead;
  const int count = min(keys.cached - first, program.layout.held_keys);
#pragma unroll 1
  for (int i = thread; i < count * 2 * kHalf; i += threads) {
    const int key = i / (2 * kHalf), half = i / kHalf % 2, piece = i % kHalf;
    fetch_piece(keys.held + key * program.layout.key_pitch + (half * kHalf + piece) * 16,
                pages +
                    (static_cast<std::int64_t>(keys.rows[first + key]) * 2 + half) * program.width +
                    piece * 8);
  }
}

// Where the keys of this step lie, as list_keys (attention/key_lists.cu) has them. By a warp.
__device__ inline void list_step(const SoloProgram& program, SoloBlock& block, char* memory,
                                 int slot) {
  const int beams = program.beams, length = block.news.length, lane = threadIdx.x % kWarp;
  auto* rows = reinterpret_cast<int*>(memory + program.layout.list_rows);
  auto* viewers = reinterpret_cast<std::uint8_t*>(memory + program.layout.list_viewers);
  const std::uint8_t* ancestors =
      program.state.ancestor + static_cast<std::int64_t>(slot) * program.state.longest * beams;
  const int count = list_lines(
      length, beams,
      [&](int t, int k) {
        return static_cast<int>(__ldcg(ancestors + static_cast<std::int64_t>(t) * beams + k));
      },
      [&](int place, int t, int line, unsigned seen_by) {
        rows[place] = static_cast<int>(cache_row(program.self, slot, t, line));
        viewers[place] = static_cast<std::uint8_t>(seen_by);
      });
  if (lane < beams + kTileKeys)
    viewers[count + lane] = lane < beams ? static_cast<std::uint8_t>(1u << lane) : 0;
  if (lane == 0)
    block.list_count = count,
    block.own_row = static_cast<int>(cache_row(program.self, slot, length, 0));
  __syncwarp();
}
__device__ inline void list_source(const SoloProgram& program, char* memory, int slot,
                                   int source_length) {
  auto* rows = reinterpret_cast<int*>(memory + program.layout.source_rows);
  for (int t = threadIdx.x; t < source_length; t += kSoloThreads)
    rows[t] = static_cast<int>(cache_row(program.cross, slot, t, 0));
}

// The hypotheses' own keys and values, in pieces of 16 bytes, by a warp: put(hypothesis, half,
// column, piece).
template <class T, int kHead, class Put>
__device__ __forceinline__ void each_own(const SoloProgram& program, const SoloOp& op, int head,
                                         const char* memory, const Put& put) {
  constexpr int kHalf = kHead / 8;
#pragma unroll 1
  for (int i = threadIdx.x % kWarp; i < program.beams * 2 * kHalf; i += kWarp) {
    const int beam = i / (2 * kHalf), half = i / kHalf % 2, column = i % kHalf * 8;
    put(beam, half, column,
        *reinterpret_cast<const uint4*>(
            reinterpret_cast<const T*>(memory + op.x.at + beam * op.x.pitch) +
            (1 + half) * program.width + head * kHead + column));
  }
}
// To the cache.
template <class T, int kHead>
__device__ __forceinline__ void store_own(const SoloProgram& program, const SoloOp& op, int own_row,
                                          int head, const char* memory) {
  T* pages = static_cast<T*>(op.pages) + head * kHead;
  each_own<T, kHead>(
      program, op, head, memory, [&](int beam, int half, int column, const uint4& piece) {
        *reinterpret_cast<uint4*>(
            pages + (static_cast<std::int64_t>(own_row + beam) * 2 + half) * program.width +
            column) = piece;
      });
}

// One warp: this block's head, to all blocks. The first chunk's cached keys have come.
template <class T, int kHead>
__device__ __forceinline__ void attend_head(const SoloProgram& program, const SoloOp& op,
                                            const SoloKeys& keys, int head, char* memory,
                                            const Exchange& exchange) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4, beams = program.beams,
            held = program.layout.held_keys;
  BeamTile<T, kHead> tile;
  tile.begin(g < beams
                 ? reinterpret_cast<const T*>(memory + op.x.at + g * op.x.pitch) + head * kHead
                 : nullptr);
#pragma unroll 1
  for (int first = 0; first < keys.all; first += held) {
    if (first > 0) {
      __syncwarp();
      fetch_keys<T, kHead>(program, op, keys, first, head, lane, kWarp);
      wait_fetched();
      __syncwarp();
    }
    if (keys.viewers) {  // the hypotheses' own are the last ones
      each_own<T, kHead>(
          program, op, head, memory, [&](int beam, int half, int column, const uint4& piece) {
            const int place = keys.cached + beam - first;
            if (place >= 0 && place < held)
              *reinterpret_cast<uint4*>(keys.held + place * program.layout.key_pitch +
                                        (half * kHead + column) * 2) = piece;
          });
      __syncwarp();
    }
    const int count = min(keys.all - first, held);
    const auto at = [&](int e, int half) {  // behind the last one any that can be read
      return reinterpret_cast<const T*>(keys.held + min(e, count - 1) * program.layout.key_pitch) +
             half * kHead;
    };
    const auto viewers_of = [&](int e) -> unsigned {
      return keys.viewers ? keys.viewers[first + e] : e < count ? ~0u : 0u;
    };
#pragma unroll 1
    for (int e = 0; e < count; e += kTileKeys) {
      const T* const key[2] = {at(e + g, 0), at(e + g + 8, 0)};
      const unsigned viewers[2] = {viewers_of(e + g), viewers_of(e + g + 8)};
      const T* const value[4] = {at(e + 2 * t, 1), at(e + 2 * t + 1, 1), at(e + 2 * t + 8, 1),
                                 at(e + 2 * t + 9, 1)};
      tile.add(key, viewers, value);
    }
  }
  T* out = reinterpret_cast<T*>(memory + op.out.at) + head * kHead;
  tile.end(out, op.out.pitch / static_cast<int>(sizeof(T)), beams);
  __syncwarp();
  constexpr int kPieces = kHead * static_cast<int>(sizeof(T)) / 16;
#pragma unroll 4
  for (int i = lane; i < beams * kPieces * kSoloCluster; i += kWarp) {
    const int piece = i / kSoloCluster,
              place = piece / kPieces * op.out.pitch + piece % kPieces * 16;
    const char* from = reinterpret_cast<const char*>(out) + place;
    exchange.send_one(shared_address(from), *reinterpret_cast<const uint4*>(from));
  }
}

}  // namespace xlate::cuda
