// This file has the solo kernel's vocabulary product, log-sum and candidates. The blocks that
// compute no layers divide the vocabulary's tiles of 128 ids among them, and load their weights
// while the layers are computed. For each row a block writes the sums of exponentials of its tiles
// and its best candidates. Block 0 then merges them. The sums have the bits of those of
// vocabulary/project.cu and vocabulary/merge.cu.
#pragma once

#include "engine/cuda/solo/block.cuh"
#include "engine/cuda/vocabulary/log_sum.cuh"

namespace xlate::cuda {

// Returns whether a is better than b, in the order of `better` (device.cuh). Neither value may be
// NaN.
__device__ inline bool comes_before(const TokenValue& a, const TokenValue& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
}
// Returns an integer by which values are ordered. It is 0 for −∞ and NaN, which cannot be chosen.
__device__ inline unsigned order_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);
  if (!(value > -INFINITY)) return 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
// Returns value and token as one integer by which entries are ordered: it is larger for what comes
// first. It is 0 for −∞ and NaN.
__device__ inline unsigned long long key_of(float value, std::int32_t token) {
  if (!(value > -INFINITY)) return 0;
  return static_cast<unsigned long long>(order_of(value)) << 32 | ~static_cast<unsigned>(token);
}
// Returns the entry that a key stands for.
__device__ inline TokenValue best_of_key(unsigned long long key) {
  const auto place = static_cast<unsigned>(key >> 32);
  if (key == 0) return {-INFINITY, 0};
  return {__uint_as_float(place & 0x80000000u ? place & 0x7fffffffu : ~place),
          static_cast<std::int32_t>(~static_cast<unsigned>(key))};
}
__device__ inline unsigned long long max_of_warp(unsigned long long key) {
  const auto high = static_cast<unsigned>(key >> 32), largest = __reduce_max_sync(kAllLanes, high);
  return static_cast<unsigned long long>(largest) << 32 |
         __reduce_max_sync(kAllLanes, high == largest ? static_cast<unsigned>(key) : 0u);
}

// Returns how many blocks compute the vocabulary.
__device__ inline int vocabulary_blocks(const SoloArgs& args) {
  return static_cast<int>(gridDim.x) - args.layer_blocks;
}
// This block has the tiles [first, first + count) of the vocabulary.
struct SoloTiles {
  int block, blocks, first, count;
  __device__ explicit SoloTiles(const SoloArgs& args)
      : block(static_cast<int>(blockIdx.x) - args.layer_blocks),
        blocks(vocabulary_blocks(args)),
        first(first_tile_of(block, args.tiles, blocks)),
        count(first_tile_of(block + 1, args.tiles, blocks) - first) {}
};

// Loads the weights of the block's tiles, one box a stage. One thread calls it. Returns false if no
// more stages will be read.
__device__ inline bool load_tiles(const SoloArgs& args, const SoloBlock& block,
                                  std::uint32_t stages, SoloPipelineState& ring,
                                  const SoloTiles& tiles) {
  const std::uint64_t policy = read_once();
  const int boxes = args.width / 64;
  const char* from = static_cast<const char*>(args.vocabulary_weight) +
                     static_cast<std::size_t>(tiles.first) * boxes * kSoloStageBytes;
  for (int i = 0; i < tiles.count * boxes; ++i, from += kSoloStageBytes, ring.advance()) {
    if (!wait_for_room(block, ring)) return false;
    const std::uint32_t full = shared_address(&block.full[ring.index]);
    arrive_expecting(full, kSoloStageBytes);
    load_bytes_hinted(stages + ring.index * kSoloStageBytes, from, kSoloStageBytes, full, policy);
  }
  return true;
}

// Marks the ids of the block that are never chosen, with a bit each.
__device__ inline void mark_never(const SoloArgs& args, const SoloTiles& tiles, char* memory) {
  auto* never = reinterpret_cast<unsigned*>(memory + args.layout.never);
  for (int i = threadIdx.x; i < tiles.count * kSoloTileIds / 32; i += kSoloThreads) never[i] = 0;
  sync_workers();
  for (int i = threadIdx.x; i < args.rules.never_chosen_count; i += kSoloThreads) {
    const int n = args.rules.never_chosen[i] - tiles.first * kSoloTileIds;
    if (n >= 0 && n < tiles.count * kSoloTileIds) atomicOr(&never[n / 32], 1u << n % 32);
  }
  sync_workers();
}
__device__ inline bool is_never(const unsigned* never, int n) {
  return never[n / 32] >> n % 32 & 1;
}

// Computes the logits of a tile, [rows, 128 ids]. They are −∞ behind the end of the vocabulary, and
// with `renormalize` for ids that are never chosen. A warp computes 16 ids.
template <class T>
__device__ __forceinline__ void find_logits(const SoloArgs& args, const SoloBlock& block,
                                            std::uint32_t address, char* memory,
                                            SoloPipelineState& ring, const SoloTiles& tiles,
                                            const SoloTile& operands, int tile) {
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4, q = threadIdx.x % 4,
            ids = tiles.count * kSoloTileIds, n = tile * kSoloTileIds + warp * kSoloTileOutputs + g;
  auto* logits = reinterpret_cast<float*>(memory + args.layout.logits);
  const auto* never = reinterpret_cast<const unsigned*>(memory + args.layout.never);
  float bias[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int id = tiles.first * kSoloTileIds + n + 8 * half;
    bias[half] = id >= args.vocabulary || (args.rules.renormalize && is_never(never, n + 8 * half))
                     ? -INFINITY
                 : args.vocabulary_bias ? args.vocabulary_bias[id]
                                        : 0.0f;
  }
  float sums[4] = {};
  sum_stages<T, 1>(block, address, ring, operands, args.width / 64, kSoloWarps, sums);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (2 * q + j % 2 < args.beams)
      logits[(2 * q + j % 2) * ids + n + j / 2 * 8] = sums[j] + bias[j / 2];
  }
}

// Returns a tile's sum of exponentials as (x, y), which stands for y·2^x. A warp computes it with
// the additions of vocabulary/project.cu, where thread t of a quad has the columns 8·j + 2·t + b.
// Here the lanes 4·j + t take the part of thread t, and the shuffles take the part of its tree.
__device__ inline float2 sum_of_tile(const SoloArgs& args, const float* logits,
                                     const unsigned* never) {
  constexpr float kLog2E = 1.4426950408889634f;
  const int lane = threadIdx.x % kWarp, t = lane % 4, j = lane / 4;
  const auto over_columns = [&](float x, const auto& join) {
    for (int offset = 16; offset >= 4; offset /= 2)
      x = join(x, __shfl_xor_sync(kAllLanes, x, offset));
    return x;
  };
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  float value[2][2], highest = -INFINITY;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int b = 0; b < 2; ++b)
      value[i][b] = logits[8 * (j + 8 * i) + 2 * t + b], highest = fmaxf(highest, value[i][b]);
  }
  float top = over_columns(highest, larger) * kLog2E;
  const auto power = [&](float x, float relative_to) {
    return exp2_approximate(fmaf(x, kLog2E, relative_to == -INFINITY ? 0.0f : -relative_to));
  };
  float sum = 0;
  // With one candidate, project.cu first adds the ids that are never chosen, one after the other.
  if (args.candidates == 1 && !args.rules.renormalize) {
    for (int word = 0; word < kSoloTileIds / 32; ++word) {
      for (unsigned bits = never[word]; bits; bits &= bits - 1) {
        const int n = 32 * word + __ffs(static_cast<int>(bits)) - 1;
        if (n / 2 % 4 == t) {
          sum += power(logits[n], top);
          if (n / 8 % 8 == j) value[n / 64][n % 2] = -INFINITY;
        }
      }
    }
  }
  float pair[2];
#pragma unroll
  for (int b = 0; b < 2; ++b)
    pair[b] = over_columns(power(value[0][b], top) + power(value[1][b], top),
                           [](float x, float y) { return x + y; });
  sum += pair[0] + pair[1];
  float most = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
  most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
  sum *= exp2_approximate(top - (most == -INFINITY ? 0.0f : most));
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  sum += __shfl_xor_sync(kAllLanes, sum, 2);
  return {most, sum};
}

// Lists the block's best candidates of a row, one after the other. In each turn every lane offers
// the best of its own logits that have not been taken. One warp calls it.
__device__ __noinline__ void list_in_turn(const float* logits, const unsigned* never, int first_id,
                                          int ids, int candidates, TokenValue* list) {
  const int lane = threadIdx.x % kWarp;
  const auto next_after = [&](const TokenValue& last) {
    TokenValue best{-INFINITY, -1};
#pragma unroll 4
    for (int n = lane; n < ids; n += kWarp) {
      const float value = logits[n];
      if (value > best.value && (value < last.value || (value == last.value && n > last.token)) &&
          !is_never(never, n))
        best = {value, n};
    }
    return best;
  };
  TokenValue mine = next_after({INFINITY, -1});
  for (int i = 0; i < candidates; ++i) {
    const unsigned long long own = key_of(mine.value, mine.token), best = max_of_warp(own);
    if (lane == 0) {
      const TokenValue entry = best_of_key(best);
      list[i] = {entry.value, best == 0 ? 0 : first_id + entry.token};
    }
    if (best != 0 && own == best) mine = next_after(mine);
  }
}

// Finds the best logit of each tile, and of each lane, while tiles are computed. That of a tile is
// kept as the number that order_of returns. The lane has the ids n with n % 32 equal to its number.
// One warp has a row.
struct SoloBest {
  float own = -INFINITY;
  __device__ __forceinline__ void add(const float* logits, const unsigned* never,
                                      unsigned& best_of_tile) {
    const int lane = threadIdx.x % kWarp;
    float best = -INFINITY;
#pragma unroll
    for (int i = 0; i < kSoloTileIds / kWarp; ++i) {
      if (!(never[i] >> lane & 1)) best = fmaxf(best, logits[lane + i * kWarp]);
    }
    own = fmaxf(own, best);
    const unsigned highest = __reduce_max_sync(kAllLanes, order_of(best));
    if (lane == 0) best_of_tile = highest;
    __syncwarp();
  }
};

// Lists what list_in_turn lists, in most cases in one pass over few of the logits. The n-th largest
// of the lanes' best logits, where n is the number of candidates, is the bound: at least n logits
// reach it, and as a rule few more. Only tiles whose best logit reaches it are read. Where more
// than 32 logits do, or fewer than n lanes have a logit that can be chosen, list_in_turn is called.
// One warp calls it.
__device__ __forceinline__ void list_best(const SoloArgs& args, float own, const float* logits,
                                          const unsigned* never, const unsigned* best_of_tiles,
                                          const SoloTiles& tiles, TokenValue* list) {
  const int lane = threadIdx.x % kWarp, candidates = args.candidates,
            ids = tiles.count * kSoloTileIds, first_id = tiles.first * kSoloTileIds;
  int rank = 0;
#pragma unroll 8
  for (int i = 0; i < kWarp; ++i) {
    const float other = __shfl_sync(kAllLanes, own, i);
    rank += other > own || (other == own && i < lane);
  }
  const unsigned at_bound = __ballot_sync(kAllLanes, rank == candidates - 1);
  const float bound = __shfl_sync(kAllLanes, own, __ffs(static_cast<int>(at_bound)) - 1);
  if (!(bound > -INFINITY)) return list_in_turn(logits, never, first_id, ids, candidates, list);
  // The i-th logit that reaches the bound goes to lane i.
  TokenValue found{-INFINITY, INT32_MAX};
  int count = 0;
  const auto take = [&](int first) {
    const float value = logits[first + lane];
    const bool reaches = value >= bound && !is_never(never, first + lane);
    for (unsigned lanes = __ballot_sync(kAllLanes, reaches); lanes; lanes &= lanes - 1, ++count) {
      const int from = __ffs(static_cast<int>(lanes)) - 1;
      const float taken = __shfl_sync(kAllLanes, value, from);
      if (lane == count) found = {taken, first + from};
    }
  };
#pragma unroll 1
  for (int first = 0; first < tiles.count; first += kWarp) {
    const int tile = first + lane;
    const bool reached = tile < tiles.count && best_of_tiles[tile] >= order_of(bound);
    for (unsigned left = __ballot_sync(kAllLanes, reached); left; left &= left - 1) {
      const int id = (first + __ffs(static_cast<int>(left)) - 1) * kSoloTileIds;
#pragma unroll 1
      for (int i = 0; i < kSoloTileIds; i += kWarp) take(id + i);
    }
  }
  if (count > kWarp) return list_in_turn(logits, never, first_id, ids, candidates, list);
  int place = 0;
  for (int i = 0; i < count; ++i) {
    const TokenValue other{__shfl_sync(kAllLanes, found.value, i),
                           __shfl_sync(kAllLanes, found.token, i)};
    place += comes_before(other, found);
  }
  if (lane < count && place < candidates) list[place] = {found.value, first_id + found.token};
}

// Computes the block's logits, and writes the sums of exponentials of its tiles and its candidates
// to global memory, for all rows. A warp has a row. It finds what can be found of a tile as soon as
// its logits are there, while weights of the next tiles are still on their way.
template <class T>
__device__ __forceinline__ void find_candidates(const SoloArgs& args, const SoloBlock& block,
                                                std::uint32_t address, char* memory,
                                                SoloPipelineState& ring, const SoloTiles& tiles) {
  const int row = threadIdx.x / kWarp, ids = tiles.count * kSoloTileIds;
  const bool has_row = row < args.beams;
  const auto* logits = reinterpret_cast<const float*>(memory + args.layout.logits) + row * ids;
  const auto* never = reinterpret_cast<const unsigned*>(memory + args.layout.never);
  auto* best_of_tiles = reinterpret_cast<unsigned*>(memory + args.layout.best_of_tiles) +
                        row * args.layout.slice_tiles;
  const SoloTile operands(address + args.layout.hidden,
                          args.width * static_cast<int>(sizeof(T)) + kSoloGap, args.beams, row, 1);
  SoloBest best;
#pragma unroll 1
  for (int tile = 0; tile < tiles.count; ++tile) {
    find_logits<T>(args, block, address, memory, ring, tiles, operands, tile);
    sync_workers();
    if (!has_row) continue;
    const float* of_tile = logits + tile * kSoloTileIds;
    const unsigned* never_of_tile = never + tile * kSoloTileIds / 32;
    const float2 sum = sum_of_tile(args, of_tile, never_of_tile);
    if (threadIdx.x % kWarp == 0)
      args.sums[static_cast<std::int64_t>(row) * args.tiles + tiles.first + tile] = sum;
    best.add(of_tile, never_of_tile, best_of_tiles[tile]);
  }
  if (has_row)
    list_best(args, best.own, logits, never, best_of_tiles, tiles,
              args.lists +
                  (static_cast<std::int64_t>(row) * tiles.blocks + tiles.block) * args.candidates);
}

// Finds the best candidates of those that the blocks have listed for a row, among others that are
// worse. Returns how many it writes from best_of_row[args.candidates] on, in no order. best_of_row
// must have room for n² + 2·n entries, where n is the number of candidates. One warp calls it.
__device__ __forceinline__ int merge_lists(const SoloArgs& args, int row, int splits,
                                           TokenValue* best_of_row) {
  constexpr int kFronts = kSoloMostVocabularyBlocks / kWarp;
  const int lane = threadIdx.x % kWarp, count = args.candidates;
  TokenValue* list = best_of_row + count;
  const TokenValue* lists = args.lists + static_cast<std::int64_t>(row) * splits * count;
  const auto read = [&](int split, int i) {
    const uint2 bits = __ldcg(
        reinterpret_cast<const uint2*>(lists + static_cast<std::int64_t>(split) * count + i));
    return TokenValue{__uint_as_float(bits.x), static_cast<std::int32_t>(bits.y)};
  };
  const auto key_at = [&](int split, int i) {
    const TokenValue entry = read(split, i);
    return key_of(entry.value, entry.token);
  };
  unsigned long long fronts[kFronts];
#pragma unroll
  for (int i = 0; i < kFronts; ++i)
    fronts[i] = lane + i * kWarp < splits ? key_at(lane + i * kWarp, 0) : 0;

  // The best `count` entries are in the `count` lists whose first entries are best. None of them is
  // worse than the worst of these first entries, which is the bound.
  unsigned long long bound = 0;
  auto* chosen = reinterpret_cast<int*>(list + count * count);
  int lists_chosen = 0;
  for (; lists_chosen < count; ++lists_chosen) {
    unsigned long long mine = 0;
#pragma unroll
    for (int i = 0; i < kFronts; ++i) mine = fronts[i] > mine ? fronts[i] : mine;
    bound = max_of_warp(mine);
    if (bound == 0) break;
    if (mine != bound) continue;
#pragma unroll
    for (int i = 0; i < kFronts; ++i) {
      if (fronts[i] == bound) fronts[i] = 0, chosen[lists_chosen] = lane + i * kWarp;
    }
  }
  __syncwarp();
  int found = 0;
#pragma unroll 2
  for (int first = 0; first < lists_chosen * count; first += kWarp) {
    const int e = first + lane;
    const TokenValue entry = e < lists_chosen * count ? read(chosen[e / count], e % count)
                                                      : TokenValue{-INFINITY, INT32_MAX};
    const unsigned long long key = key_of(entry.value, entry.token);
    const bool taken = key != 0 && key >= bound;
    const unsigned lanes = __ballot_sync(kAllLanes, taken);
    if (taken) list[found + __popc(lanes & ((1u << lane) - 1))] = entry;
    found += __popc(lanes);
  }
  __syncwarp();
  return found;
}
// Writes the best candidates of a row in their order to best_of_row[0, n), with their
// log-probabilities. `found` is what merge_lists has returned, and `all` is the row's log-sum-exp.
// Where there are fewer candidates, the last ones are −∞. One warp calls it.
__device__ __forceinline__ void rank_candidates(const SoloArgs& args, int found, float all,
                                                TokenValue* best_of_row) {
  const int lane = threadIdx.x % kWarp, count = args.candidates;
  const TokenValue* list = best_of_row + count;
  for (int i = lane; i < found; i += kWarp) {
    int place = 0;
    for (int j = 0; j < found; ++j) place += comes_before(list[j], list[i]);
    if (place < count) best_of_row[place] = {list[i].value - all, list[i].token};
  }
  // A logit that is +∞ or NaN makes the sum NaN, and NaN is in no list.
  for (int i = found + lane; i < count; i += kWarp)
    best_of_row[i] = {isnan(all) ? all : -INFINITY, 0};
}

}  // namespace xlate::cuda
