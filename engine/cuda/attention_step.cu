// Attention of a decoding step over the paged caches. On tensor cores a warp takes up to 8 beams of a sentence and one head: what the
// beams share is read once for all of them (attention_tile.cuh). What tensor cores cannot take goes to attention_rows.cu. Float32 sums.
#include <algorithm>

#include "engine/cuda/attention_tile.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kTileBeams = 8;  // rows of a warp

// A key of a list: its row in the cache, and which beam of the warp may see it.
struct KeyEntry {
  static constexpr unsigned kAll = 15, kNobody = 14, kViewerBits = 4;
  unsigned packed = kNobody;
  __device__ static KeyEntry of(std::int64_t row, unsigned viewer) { return {static_cast<unsigned>(row) << kViewerBits | viewer}; }
  __device__ std::int64_t row() const { return packed >> kViewerBits; }
  __device__ unsigned viewer() const { return packed & kAll; }
};

// The state of a warp's beams, up to 8: they are the columns of both products, so lane g brings beam g's query and ends with columns
// 8g … of beams 2t and 2t + 1.
template <class T, int kHead>
class BeamTile {
 public:
  // The query of beam g; null: there is none.
  __device__ void begin(const T* query) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) query_[c] = query ? load_piece(query + 32 * c + 8 * t) : uint4{};
#pragma unroll
    for (int j = 0; j < kTiles; ++j) acc_[j][0] = acc_[j][1] = acc_[j][2] = acc_[j][3] = 0.0f;
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  // Adds 16 keys. `key` are those of keys g and g + 8, which `viewer` may see: a beam, or all; `value` those of keys 2t, 2t + 1, 2t + 8
  // and 2t + 9. All must be readable.
  __device__ void add(const T* const (&key)[2], const unsigned (&viewer)[2], const T* const (&value)[4]) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    uint4 k[2][kChunks];
    Value v[4][kValues];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) k[i][c] = load_piece(key[i] + 32 * c + 8 * t);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kValues; ++c) v[i][c] = *reinterpret_cast<const Value*>(value[i] + 64 * c + kColumns * g);
    }
    float score[4] = {};  // key g with beams 2t and 2t + 1, key g + 8 with them
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      multiply_add(score, {k[0][c].x, k[1][c].x, k[0][c].y, k[1][c].y}, query_[c].x, query_[c].y, T());
      multiply_add(score, {k[0][c].z, k[1][c].z, k[0][c].w, k[1][c].w}, query_[c].z, query_[c].w, T());
    }
    unsigned share[2];
    weigh(score, viewer, share);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int c = j / (kColumns / 2), word = j % (kColumns / 2);
      const unsigned a = word_of(v[0][c], word), b = word_of(v[1][c], word), d = word_of(v[2][c], word), e = word_of(v[3][c], word);
      multiply_add(acc_[j], {__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(d, e, 0x5410), __byte_perm(d, e, 0x7632)}, share[0], share[1], T());
    }
  }

  // Writes the rows of `beams` beams, `stride` apart.
  __device__ void end(T* out, std::int64_t stride, int beams) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = sum_[i];
      for (int offset = 4; offset < kWarp; offset *= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
      const float inverse = 1.0f / sum;
      if (2 * t + i >= beams) continue;
      T* row = out + (2 * t + i) * stride + kColumns * g;
      const auto pair = [&](int j) { return pack(acc_[j][i] * inverse, acc_[j][2 + i] * inverse, T()); };
#pragma unroll
      for (int c = 0; c < kValues; ++c) {
        if constexpr (kHead < 64) *reinterpret_cast<uint2*>(row) = {pair(0), pair(1)};
        else *reinterpret_cast<uint4*>(row + 64 * c) = {pair(4 * c), pair(4 * c + 1), pair(4 * c + 2), pair(4 * c + 3)};
      }
    }
  }

 private:
  static constexpr int kChunks = HeadPieces<kHead>::kChunks, kValues = HeadPieces<kHead>::kValues, kColumns = HeadPieces<kHead>::kColumns;
  static constexpr int kTiles = kHead / 16;  // of 16 output columns: rows g and g + 8 of tile j are columns 64·c + kColumns·g + 2·(j % …) and the next
  using Value = typename HeadPieces<kHead>::Value;

  // The online softmax over the tile, keys across lanes g; `share` becomes the B operand of the second product: keys 2t and 2t + 1 of beam g.
  __device__ void weigh(float (&s)[4], const unsigned (&viewer)[2], unsigned (&share)[2]) {
    const int t = threadIdx.x % 4;
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned beam = 2 * t + i;
#pragma unroll
      for (int key = 0; key < 2; ++key) {
        s[2 * key + i] = viewer[key] == KeyEntry::kAll || viewer[key] == beam ? s[2 * key + i] * score_scale<kHead>() : -INFINITY;
      }
      float largest = fmaxf(s[i], s[2 + i]);
      for (int offset = 4; offset < kWarp; offset *= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
      largest = fmaxf(max_[i], largest);
      const float origin = largest == -INFINITY ? 0.0f : largest;  // a beam may see no key of this tile, nor of those before
      correction[i] = exp2_approximate(max_[i] - origin);
      s[i] = exp2_approximate(s[i] - origin), s[2 + i] = exp2_approximate(s[2 + i] - origin);
      max_[i] = largest;
      sum_[i] = sum_[i] * correction[i] + (s[i] + s[2 + i]);  // this lane's part: the eight are added at the end
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      acc_[j][0] *= correction[0], acc_[j][2] *= correction[0];
      acc_[j][1] *= correction[1], acc_[j][3] *= correction[1];
    }
#pragma unroll
    for (int key = 0; key < 2; ++key) share[key] = transposed(pack(s[2 * key], s[2 * key + 1], T()));
  }

  uint4 query_[kChunks];
  float max_[2], sum_[2], acc_[kTiles][4];
};

// Adds up to 32 keys, lane i holding the i-th: `count` of them are there, the rest readable. A row of the cache has `row_size` elements.
template <class T, int kHead>
__device__ void add_keys(BeamTile<T, kHead>& tile, const T* base, std::int64_t row_size, KeyEntry entry, int count) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  for (int first = 0; first < count; first += kTileKeys) {
    const T *key[2], *value[4];
    unsigned viewer[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const KeyEntry found{__shfl_sync(kAllLanes, entry.packed, first + g + 8 * i)};
      key[i] = base + found.row() * row_size;
      viewer[i] = found.viewer();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const KeyEntry found{__shfl_sync(kAllLanes, entry.packed, first + 2 * t + i % 2 + i / 2 * 8)};
      value[i] = base + found.row() * row_size + row_size / 2;
    }
    tile.add(key, viewer, value);
  }
}

// Which rows and head a warp has.
struct TileWarp {
  std::int64_t group;
  int head, first_beam, beams;  // beams [first_beam, first_beam + beams) of the group's sentence
  __device__ TileWarp(int heads, const StepRows& rows) {
    const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
    const int all = static_cast<int>(rows.beams), parts = (all + kTileBeams - 1) / kTileBeams;
    head = static_cast<int>(warp % heads);
    first_beam = static_cast<int>(warp / heads % parts) * kTileBeams;
    beams = min(kTileBeams, all - first_beam);
    group = warp / heads / parts;
  }
};

std::int64_t tile_warps(int heads, const StepRows& rows) { return rows.groups * ((rows.beams + kTileBeams - 1) / kTileBeams) * heads; }

// The first position at which the hypotheses' histories differ: once on one line, they were so at all positions before.
__device__ int common_history(const std::uint8_t* ancestor, int beams_stride, int beams, int length) {
  if (beams == 1) return length + 1;
  for (int first = 0; first < length; first += kWarp) {
    const int t = first + threadIdx.x % kWarp;
    bool same = t < length;
    if (same) {
      const std::uint8_t* lines = ancestor + static_cast<std::int64_t>(t) * beams_stride;
      for (int k = 1; k < beams; ++k) same &= lines[k] == lines[0];
    }
    const unsigned all = __ballot_sync(kAllLanes, same);
    if (all != kAllLanes) return first + __ffs(static_cast<int>(~all)) - 1;
  }
  return length;
}

// The new keys and values of this warp's beams and head go to position `length`, each beam's on its own line.
template <class T, int kHead>
__device__ void store_own(const T* own, std::int64_t stride, std::int64_t width, T* pages, std::int64_t row, int beams) {
  constexpr int kPieces = kHead / 8;
  for (int i = threadIdx.x % kWarp; i < beams * 2 * kPieces; i += kWarp) {
    const int beam = i / (2 * kPieces), which = i / kPieces % 2, piece = i % kPieces;
    *reinterpret_cast<uint4*>(pages + (row + beam) * 2 * width + which * width + piece * 8) =
        *reinterpret_cast<const uint4*>(own + beam * stride + which * width + piece * 8);
  }
}

// A warp per sentence and part of its beams: the list of their keys, once for all layers and heads. First what all of them share, then
// for each later position an entry a beam, last the position of the token that enters now.
__global__ void key_list_kernel(CacheView cache, SearchState state, StepRows rows, KeyLists lists) {
  const TileWarp warp(1, rows);
  if (warp.group >= rows.groups) return;
  const int stride = static_cast<int>(rows.beams), lane = threadIdx.x % kWarp;
  const std::int64_t part = warp.group * ((stride + kTileBeams - 1) / kTileBeams) + warp.first_beam / kTileBeams, slot = rows.slots[warp.group];
  if (slot < 0 || state.done[slot]) {  // a sentence that is done may have taken all its pages
    if (lane == 0) lists.heads[part] = {0, 0};
    return;
  }
  const int length = state.length[slot];
  const std::uint8_t* ancestor = state.ancestor + slot * state.longest * stride + warp.first_beam;
  const int common = common_history(ancestor, stride, warp.beams, length), entries = common + (length + 1 - common) * warp.beams;
  unsigned* list = lists.entries + part * lists.stride;
  for (int i = lane; i < entries; i += kWarp) {
    const int beam = i < common ? 0 : (i - common) % warp.beams, t = i < common ? i : common + (i - common) / warp.beams;
    const int line = t == length ? warp.first_beam + beam : ancestor[static_cast<std::int64_t>(t) * stride + beam];
    list[i] = KeyEntry::of(cache_row(cache, slot, t, line), i < common ? KeyEntry::kAll : static_cast<unsigned>(beam)).packed;
  }
  if (lane == 0) lists.heads[part] = {entries, static_cast<int>(cache_row(cache, slot, length, warp.first_beam))};
}

template <class T, int kHead>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp) self_tile_kernel(AttendArgs<T> args, T* cache, StepRows rows, KeyLists lists) {
  const TileWarp warp(args.heads, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t part = warp.group * ((rows.beams + kTileBeams - 1) / kTileBeams) + warp.first_beam / kTileBeams;
  const int lane = threadIdx.x % kWarp, g = lane / 4;
  const int2 head = lists.heads[part];  // entries, and the row of the first new key
  const unsigned* list = lists.entries + part * lists.stride;
  unsigned packed = list[lane];  // with the head, not after it: lists are longer than a warp, whatever their entries
  const std::int64_t first_row = warp.group * rows.beams + warp.first_beam;
  const T* query = args.query + first_row * args.query_stride + warp.head * kHead;
  T* pages = cache + warp.head * kHead;
  if (head.x == 0) return;
  store_own<T, kHead>(query + args.width, args.query_stride, args.width, pages, head.y, warp.beams);
  __syncwarp();
  BeamTile<T, kHead> tile;
  tile.begin(g < warp.beams ? query + g * args.query_stride : nullptr);
  for (int first = 0; first < head.x; first += kWarp) {
    const unsigned next = first + kWarp + lane < head.x ? list[first + kWarp + lane] : KeyEntry::kNobody;
    if (first + lane >= head.x) packed = KeyEntry::of(head.y, KeyEntry::kNobody).packed;
    add_keys(tile, pages, 2 * args.width, KeyEntry{packed}, min(kWarp, head.x - first));
    packed = next;
  }
  tile.end(args.out + first_row * args.out_stride + warp.head * kHead, args.out_stride, warp.beams);
}

template <class T, int kHead>
__global__ void __launch_bounds__(kWarpsPerBlock * kWarp) cross_tile_kernel(AttendArgs<T> args, CacheView cache, const std::int32_t* source_lengths, StepRows rows) {
  const TileWarp warp(args.heads, rows);
  if (warp.group >= rows.groups) return;
  const std::int64_t slot = rows.slots[warp.group];
  if (slot < 0) return;
  const int n = source_lengths[slot], lane = threadIdx.x % kWarp, g = lane / 4;
  const std::int64_t first_row = warp.group * rows.beams + warp.first_beam;
  const T* pages = static_cast<const T*>(cache.pages) + warp.head * kHead;
  BeamTile<T, kHead> tile;
  tile.begin(g < warp.beams ? args.query + (first_row + g) * args.query_stride + warp.head * kHead : nullptr);
  for (int first = 0; first < n; first += kWarp) {
    const int t = first + lane;
    add_keys(tile, pages, 2 * args.width, KeyEntry::of(cache_row(cache, slot, min(t, n - 1), 0), t < n ? KeyEntry::kAll : KeyEntry::kNobody), min(kWarp, n - first));
  }
  tile.end(args.out + first_row * args.out_stride + warp.head * kHead, args.out_stride, warp.beams);
}

}  // namespace

std::int64_t key_list_stride(const SearchState& state) {
  return std::max<std::int64_t>(kWarp, state.longest * std::min<std::int64_t>(state.beams, kTileBeams));
}

std::int64_t key_list_parts(const SearchState& state) { return state.slots * ((state.beams + kTileBeams - 1) / kTileBeams); }

void list_keys(const CacheView& cache, const SearchState& state, const StepRows& rows, const KeyLists& lists, cudaStream_t stream) {
  key_list_kernel<<<blocks_for(tile_warps(1, rows), kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(cache, state, rows, lists);
}

template <class T>
void attend_self(const AttendArgs<T>& args, const CacheView& cache, const SearchState& state, const StepRows& rows, const KeyLists& lists, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      with_head(args.width / args.heads, [&](auto head) {
        self_tile_kernel<T, head><<<blocks_for(tile_warps(args.heads, rows), kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(args, static_cast<T*>(cache.pages), rows, lists);
      });
      return;
    }
  }
  attend_self_rows(args, cache, state, rows, stream);
}

template <class T>
void attend_cross(const AttendArgs<T>& args, const CacheView& cache, const std::int32_t* source_lengths, const StepRows& rows, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      with_head(args.width / args.heads, [&](auto head) {
        cross_tile_kernel<T, head><<<blocks_for(tile_warps(args.heads, rows), kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(args, cache, source_lengths, rows);
      });
      return;
    }
  }
  attend_cross_rows(args, cache, source_lengths, rows, stream);
}

#define INSTANTIATE(T)                                                                                                                     \
  template void attend_self<T>(const AttendArgs<T>&, const CacheView&, const SearchState&, const StepRows&, const KeyLists&, cudaStream_t); \
  template void attend_cross<T>(const AttendArgs<T>&, const CacheView&, const std::int32_t*, const StepRows&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
