// Self-attention within packed sentences and prompts. On tensor cores a warp computes 16 queries of
// a sentence for one head (tile.cuh). Where they cannot be used, and in prompts, a warp computes
// one row for one head (rows.cuh).
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/rows.cuh"
#include "engine/cuda/attention/tile.cuh"

namespace xlate::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kQueries = 16;

// The state of a warp's 16 query rows. Lanes are numbered 4·g + t (tile.cuh). The four lanes with
// the same g hold rows g (low) and g + 8 (high).
template <class T, int kHead>
class QueryTile {
 public:
  // Begins with two query rows. A null pointer stands for a row of zeros.
  __device__ void begin(const T* low, const T* high) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      query_[0][c] = low ? load_vector(low + 32 * c + 8 * t) : uint4{};
      query_[1][c] = high ? load_vector(high + 32 * c + 8 * t) : uint4{};
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) acc_[j][0] = acc_[j][1] = acc_[j][2] = acc_[j][3] = 0.0f;
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  // Adds keys [first, first + 16) of n. Key i lies at keys + i·stride, and its value `value_offset`
  // elements behind it. Keys from n on are replaced by the last one, with a weight of zero.
  // score_of(product, row, key) returns the score of query row g + 8·row and a key.
  template <class ScoreOf>
  __device__ void add(const T* keys, std::int64_t stride, std::int64_t value_offset, int first,
                      int n, const ScoreOf& score_of) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    const auto row_of = [&](int key) { return keys + min(first + key, n - 1) * stride; };
    uint4 k[2][kChunks];
    Value v[4][kValues];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) k[i][c] = load_vector(row_of(g + 8 * i) + 32 * c + 8 * t);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kValues; ++c)
        v[i][c] = *reinterpret_cast<const Value*>(row_of(2 * t + i % 2 + i / 2 * 8) + value_offset +
                                                  64 * c + kColumns * g);
    }
    float score[2][4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const unsigned first[4] = {query_[0][c].x, query_[1][c].x, query_[0][c].y, query_[1][c].y};
      const unsigned second[4] = {query_[0][c].z, query_[1][c].z, query_[0][c].w, query_[1][c].w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(score[i], first, k[i][c].x, k[i][c].y, T());
        multiply_add(score[i], second, k[i][c].z, k[i][c].w, T());
      }
    }
    unsigned weight[4] = {};  // The weights of the keys are the A operand of the second product.
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float scores[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + 2 * t + i % 2 + i / 2 * 8;
        scores[i] = key < n ? score_of(score[i / 2][2 * row + i % 2], row, key) : -INFINITY;
      }
      weigh(row, scores, weight[row], weight[row + 2]);
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int c = j / kColumns, word = j % kColumns / 2;
      const unsigned pick = j % 2 ? 0x7632 : 0x5410;
      const unsigned b0 = __byte_perm(word_of(v[0][c], word), word_of(v[1][c], word), pick);
      const unsigned b1 = __byte_perm(word_of(v[2][c], word), word_of(v[3][c], word), pick);
      multiply_add(acc_[j], weight, b0, b1, T());
    }
  }

  // Writes the two output rows. A row whose pointer is null is not written.
  __device__ void end(T* low, T* high) {
    write(0, low);
    write(1, high);
  }

 private:
  static constexpr int kChunks = HeadVectors<kHead>::kChunks, kValues = HeadVectors<kHead>::kValues,
                       kColumns = HeadVectors<kHead>::kColumns;
  // The number of product tiles, of 8 output columns each. With c = j / kColumns, column n of tile
  // j is output column 64·c + kColumns·n + j % kColumns.
  static constexpr int kTiles = kHead / 8;
  using Value = typename HeadVectors<kHead>::Value;

  // Does the online softmax of one row over 16 keys, whose scores lie in four lanes.
  __device__ void weigh(int row, float (&s)[4], unsigned& first, unsigned& second) {
    float largest = fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(max_[row], fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2)));
    const float correction = exp2_approximate(max_[row] - largest);
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i] = exp2_approximate(s[i] - largest);
    max_[row] = largest;
    // The sum is of this lane's keys. write() adds the sums of the row's four lanes.
    sum_[row] = sum_[row] * correction + ((s[0] + s[1]) + (s[2] + s[3]));
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
      acc_[j][2 * row] *= correction, acc_[j][2 * row + 1] *= correction;
    first = pack(s[0], s[1], T());
    second = pack(s[2], s[3], T());
  }

  __device__ void write(int row, T* out) {
    const int t = threadIdx.x % 4;
    float sum = sum_[row];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (!out) return;
    const float inverse = 1.0f / sum;
    const auto pair = [&](int a, int column) {
      return pack(acc_[a][2 * row + column] * inverse, acc_[a + 1][2 * row + column] * inverse,
                  T());
    };
#pragma unroll
    for (int c = 0; c < kValues; ++c) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        T* place = out + 64 * c + kColumns * (2 * t + n);
        const int j = c * kColumns;
        if constexpr (kHead < 64) {
          *reinterpret_cast<uint2*>(place) = {pair(j, n), pair(j + 2, n)};
        } else {
          *reinterpret_cast<uint4*>(place) = {pair(j, n), pair(j + 2, n), pair(j + 4, n),
                                              pair(j + 6, n)};
        }
      }
    }
  }

  uint4 query_[2][kChunks];
  float max_[2], sum_[2], acc_[kTiles][4];
};

// A warp computes one tile of 16 queries for one head. The tiles of sentence b begin with number
// offsets[b] / 16 + b. This leaves each sentence at least as many tiles as it needs, and no table
// of tiles is necessary. A warp whose tile has no queries ends at once.
template <class T, int kHead, bool kUsual>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp)
    packed_tile_kernel(AttendArgs<T> args, const std::int32_t* offsets, std::int64_t sentences,
                       std::int64_t tiles) {
  const std::int64_t warp =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const std::int64_t tile_index = warp / args.heads;
  if (tile_index >= tiles) return;
  const int head = static_cast<int>(warp % args.heads), lane = threadIdx.x % kWarp, g = lane / 4;
  const auto first_tile = [&](std::int64_t b) { return offsets[b] / kQueries + b; };
  const std::int64_t sentence = find_sentence(sentences, tile_index, first_tile);
  const int begin = offsets[sentence], n = offsets[sentence + 1] - begin;
  const int first_query = static_cast<int>(tile_index - first_tile(sentence)) * kQueries;
  if (first_query >= n) return;

  const T* rows = args.query + begin * args.query_stride + head * kHead;
  const int low = first_query + g, high = low + 8;
  QueryTile<T, kHead> tile;
  tile.begin(low < n ? rows + low * args.query_stride : nullptr,
             high < n ? rows + high * args.query_stride : nullptr);
  const HeadBias bias(args, head);
  const auto score_of = [&](float product, int row, int key) {
    if constexpr (kUsual)
      return usual_score<kHead>(product);
    else
      return fmaf(product, args.scale * kLog2OfE, bias.of(key - (low + 8 * row)) * kLog2OfE);
  };
  for (int first = 0; first < n; first += kTileKeys)
    tile.add(rows + args.width, args.query_stride, args.width, first, n, score_of);
  T* out = args.out + begin * args.out_stride + head * kHead;
  tile.end(low < n ? out + low * args.out_stride : nullptr,
           high < n ? out + high * args.out_stride : nullptr);
}

// A warp computes one row for one head.
template <class T, int kColumns>
__global__ void packed_row_kernel(AttendArgs<T> args, const std::int32_t* offsets,
                                  std::int64_t sentences, std::int64_t rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  if (row >= rows) return;
  const std::int64_t sentence =
      find_sentence(sentences, row, [&](std::int64_t b) { return offsets[b]; });
  const std::int64_t first = offsets[sentence], n = offsets[sentence + 1] - first;
  const T* keys = args.query + first * args.query_stride + args.width + head * width;
  attend<T, kColumns>(
      args.query + row * args.query_stride + head * width, n, width, args.width,
      plain_scores(args, head, row - first),
      [&](std::int64_t t) { return keys + t * args.query_stride; },
      args.out + row * args.out_stride + head * width);
}

// A warp computes one row of a pass for one head, with all that AttendArgs can ask for.
template <class T, int kColumns>
__global__ void prompt_row_kernel(AttendArgs<T> args, PromptKeys<T> all,
                                  const std::int32_t* offsets, std::int64_t prompts,
                                  std::int64_t rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  if (row >= rows) return;
  const std::int64_t prompt =
      find_sentence(prompts, all.first + row, [&](std::int64_t b) { return offsets[b]; });
  const std::int64_t begin = offsets[prompt], position = all.first + row - begin,
                     first = first_seen(args, position);
  const T* keys = all.rows + begin * all.stride + head / args.group * width;
  const HeadScores scores(args, head, position);
  attend<T, kColumns>(
      args.query + row * args.query_stride + head * width, position + 1 - first, width,
      args.key_width, [&](float product, std::int64_t i) { return scores.of(product, first + i); },
      [&](std::int64_t i) { return keys + (first + i) * all.stride; },
      args.out + row * args.out_stride + head * width);
}

// A warp computes one row of a pass for one head, over the rows of the sentence's source.
template <class T, int kColumns>
__global__ void packed_source_row_kernel(AttendArgs<T> args, PromptKeys<T> all,
                                         const std::int32_t* offsets,
                                         const std::int32_t* source_offsets, std::int64_t sentences,
                                         std::int64_t rows) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int head = blockIdx.y, width = static_cast<int>(args.width / args.heads);
  if (row >= rows) return;
  const std::int64_t sentence =
      find_sentence(sentences, all.first + row, [&](std::int64_t b) { return offsets[b]; });
  const std::int64_t begin = source_offsets[sentence];
  const T* keys = all.rows + begin * all.stride + head * width;
  attend<T, kColumns>(
      args.query + row * args.query_stride + head * width, source_offsets[sentence + 1] - begin,
      width, args.width, [&](float product, std::int64_t) { return product * args.scale; },
      [&](std::int64_t t) { return keys + t * all.stride; },
      args.out + row * args.out_stride + head * width);
}

}  // namespace

template <class T>
void attend_packed(const AttendArgs<T>& args, const std::int32_t* offsets, std::int64_t sentences,
                   std::int64_t rows, cudaStream_t stream) {
  if (rows == 0) return;
  if constexpr (sizeof(T) == 2) {
    if (tile_attention_fits(args)) {
      const std::int64_t tiles = rows / kQueries + sentences, warps = tiles * args.heads;
      with_head(args.width / args.heads, [&](auto head) {
        with_scores(args, [&](auto usual) {
          packed_tile_kernel<T, head, usual>
              <<<blocks_for(warps, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, stream>>>(
                  args, offsets, sentences, tiles);
        });
      });
      return;
    }
  }
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows, kWarpsPerBlock), static_cast<unsigned>(args.heads));
    packed_row_kernel<T, columns>
        <<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, offsets, sentences, rows);
  });
}

template <class T>
void attend_prompts(const AttendArgs<T>& args, const PromptKeys<T>& keys,
                    const std::int32_t* offsets, std::int64_t prompts, std::int64_t rows,
                    cudaStream_t stream) {
  if (rows == 0) return;
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows, kWarpsPerBlock), static_cast<unsigned>(args.heads));
    prompt_row_kernel<T, columns>
        <<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(args, keys, offsets, prompts, rows);
  });
}

template <class T>
void attend_packed_sources(const AttendArgs<T>& args, const PromptKeys<T>& keys,
                           const std::int32_t* offsets, const std::int32_t* source_offsets,
                           std::int64_t sentences, std::int64_t rows, cudaStream_t stream) {
  if (rows == 0) return;
  with_columns(args.width / args.heads, [&](auto columns) {
    const dim3 grid(blocks_for(rows, kWarpsPerBlock), static_cast<unsigned>(args.heads));
    packed_source_row_kernel<T, columns><<<grid, kWarpsPerBlock * kWarp, 0, stream>>>(
        args, keys, offsets, source_offsets, sentences, rows);
  });
}

#define INSTANTIATE(T)                                                                             \
  template void attend_packed<T>(const AttendArgs<T>&, const std::int32_t*, std::int64_t,          \
                                 std::int64_t, cudaStream_t);                                      \
  template void attend_prompts<T>(const AttendArgs<T>&, const PromptKeys<T>&, const std::int32_t*, \
                                  std::int64_t, std::int64_t, cudaStream_t);                       \
  template void attend_packed_sources<T>(const AttendArgs<T>&, const PromptKeys<T>&,               \
                                         const std::int32_t*, const std::int32_t*, std::int64_t,   \
                                         std::int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
