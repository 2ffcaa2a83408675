// Attention of a decoding step on tensor cores, for one warp: the queries of a beam tile, which has
// up to 8 beams of a sentence, attend with one head to a list of keys, 16 keys at a time
// (tile.cuh). The kernels of step.cu, stream.cu and solo/attention.cuh share this file, so they
// form the same sums.
#pragma once

#include "engine/cuda/attention/tile.cuh"

namespace xlate::cuda {

// The beam tile and the head of a warp. Consecutive warps have the heads of one beam tile.
struct TileWarp {
  std::int64_t group, beam_tile;  // The beam tile is numbered among those of all groups.
  int head, first_beam, beams;    // The warp has beams [first_beam, first_beam + beams).
  __device__ TileWarp(int heads, const StepRows& rows) {
    const std::int64_t warp =
        static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
    const int all = static_cast<int>(rows.beams), beam_tiles = (all + kTileBeams - 1) / kTileBeams;
    head = static_cast<int>(warp % heads);
    beam_tile = warp / heads;
    first_beam = static_cast<int>(beam_tile % beam_tiles) * kTileBeams;
    beams = min(kTileBeams, all - first_beam);
    group = beam_tile / beam_tiles;
  }
};

// Makes the usual scores of a tile's keys from their products with the queries.
template <int kHead>
struct UsualScores {
  __device__ float operator()(float product, int) const { return usual_score<kHead>(product); }
};
// Makes scores with any scale, and with a distance bias where there is one. A key has one bias for
// all beams, because these stand at the same position.
struct AnyScores {
  float scale;
  float bias[2];  // These are the biases of keys g and g + 8.
  __device__ AnyScores(float scale, const HeadBias& head, const unsigned (&beam_mask)[2])
      : scale(scale * kLog2OfE) {
#pragma unroll
    for (int key = 0; key < 2; ++key)
      bias[key] = head.of(-static_cast<int>(beam_mask[key] >> kTileBeams)) * kLog2OfE;
  }
  __device__ float operator()(float product, int key) const {
    return fmaf(product, scale, bias[key]);
  }
};
// Makes one or the other for the two keys with these masks.
template <bool kUsual, int kHead>
__device__ auto scores_of(float scale, const HeadBias& bias, const unsigned (&beam_mask)[2]) {
  if constexpr (kUsual)
    return UsualScores<kHead>();
  else
    return AnyScores(scale, bias, beam_mask);
}

// The state of a warp's beam tile. Lanes are numbered 4·g + t (tile.cuh). The beams are the columns
// of both products. Therefore quad g, which is the lanes 4·g … 4·g + 3, reads the query of beam g,
// and at the end lane 4·g + t holds columns 64·c + kColumns·g … of the outputs of beams 2t and 2t +
// 1.
template <class T, int kHead>
class BeamTile {
 public:
  // Begins with the query of beam g. A null pointer means that there is no such beam.
  __device__ void begin(const T* query) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
      query_[c] = query ? load_vector(query + 32 * c + 8 * t) : uint4{};
#pragma unroll
    for (int j = 0; j < kTiles; ++j) acc_[j][0] = acc_[j][1] = acc_[j][2] = acc_[j][3] = 0.0f;
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  // Adds 16 keys. `key` points to keys g and g + 8, and a bit of `beam_mask` says for each beam
  // whether it attends to them. `value` points to the values of keys 2t, 2t + 1, 2t + 8 and 2t + 9.
  // All pointers must be readable, also those of keys to which no beam attends. scores(product, i)
  // returns the score of key g + 8·i.
  template <class Scores>
  __device__ void add(const T* const (&key)[2], const unsigned (&beam_mask)[2],
                      const T* const (&value)[4], const Scores& scores) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    uint4 k[2][kChunks];
    Value v[4][kValues];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) k[i][c] = load_vector(key[i] + 32 * c + 8 * t);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kValues; ++c)
        v[i][c] = *reinterpret_cast<const Value*>(value[i] + 64 * c + kColumns * g);
    }
    // The scores of key g with beams 2t and 2t + 1, then those of key g + 8 with the same beams.
    float score[4] = {};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      multiply_add(score, {k[0][c].x, k[1][c].x, k[0][c].y, k[1][c].y}, query_[c].x, query_[c].y,
                   T());
      multiply_add(score, {k[0][c].z, k[1][c].z, k[0][c].w, k[1][c].w}, query_[c].z, query_[c].w,
                   T());
    }
    unsigned weight[2];
    weigh(score, beam_mask, scores, weight);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int c = j / (kColumns / 2), word = j % (kColumns / 2);
      const unsigned a = word_of(v[0][c], word), b = word_of(v[1][c], word),
                     d = word_of(v[2][c], word), e = word_of(v[3][c], word);
      multiply_add(acc_[j],
                   {__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(d, e, 0x5410),
                    __byte_perm(d, e, 0x7632)},
                   weight[0], weight[1], T());
    }
  }

  // Writes the outputs of `beams` beams to rows that lie `stride` elements apart.
  __device__ void end(T* out, std::int64_t stride, int beams) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = sum_[i];
      for (int offset = 4; offset < kWarp; offset *= 2)
        sum += __shfl_xor_sync(kAllLanes, sum, offset);
      const float inverse = 1.0f / sum;
      if (2 * t + i >= beams) continue;
      T* row = out + (2 * t + i) * stride + kColumns * g;
      const auto pair = [&](int j) {
        return pack(acc_[j][i] * inverse, acc_[j][2 + i] * inverse, T());
      };
#pragma unroll
      for (int c = 0; c < kValues; ++c) {
        if constexpr (kHead < 64)
          *reinterpret_cast<uint2*>(row) = {pair(0), pair(1)};
        else
          *reinterpret_cast<uint4*>(row + 64 * c) = {pair(4 * c), pair(4 * c + 1), pair(4 * c + 2),
                                                     pair(4 * c + 3)};
      }
    }
  }

 private:
  static constexpr int kChunks = HeadVectors<kHead>::kChunks, kValues = HeadVectors<kHead>::kValues,
                       kColumns = HeadVectors<kHead>::kColumns;
  // The number of product tiles, of 16 output columns each. With c = j / (kColumns / 2), row g of
  // tile j is output column 64·c + kColumns·g + 2·(j % (kColumns / 2)), and row g + 8 is the next
  // column.
  static constexpr int kTiles = kHead / 16;
  using Value = typename HeadVectors<kHead>::Value;

  // Does the online softmax over 16 keys. Quad g has the scores of keys g and g + 8. `weight`
  // becomes the B operand of the second product: the weights of keys 2t and 2t + 1, then of keys 2t
  // + 8 and 2t + 9, for beam g.
  template <class Scores>
  __device__ void weigh(float (&s)[4], const unsigned (&beam_mask)[2], const Scores& scores,
                        unsigned (&weight)[2]) {
    const int t = threadIdx.x % 4;
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int key = 0; key < 2; ++key) {
        s[2 * key + i] =
            beam_mask[key] >> (2 * t + i) & 1 ? scores(s[2 * key + i], key) : -INFINITY;
      }
      float largest = fmaxf(s[i], s[2 + i]);
      for (int offset = 4; offset < kWarp; offset *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
      largest = fmaxf(max_[i], largest);
      // A beam may attend to no key so far. Then −∞ must not be subtracted from −∞.
      const float origin = largest == -INFINITY ? 0.0f : largest;
      correction[i] = exp2_approximate(max_[i] - origin);
      s[i] = exp2_approximate(s[i] - origin), s[2 + i] = exp2_approximate(s[2 + i] - origin);
      max_[i] = largest;
      // The sum is of this lane's keys. end() adds the sums of the eight lanes of a beam.
      sum_[i] = sum_[i] * correction[i] + (s[i] + s[2 + i]);
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      acc_[j][0] *= correction[0], acc_[j][2] *= correction[0];
      acc_[j][1] *= correction[1], acc_[j][3] *= correction[1];
    }
#pragma unroll
    for (int key = 0; key < 2; ++key)
      weight[key] = transposed(pack(s[2 * key], s[2 * key + 1], T()));
  }

  uint4 query_[kChunks];
  float max_[2], sum_[2], acc_[kTiles][4];
};

/// Returns whether the kernels of a decoding step on tensor cores serve these arguments. Only lists
/// of self-attention have the distances that a bias needs.
template <class T, bool kSelf>
bool step_attention_fits(const AttendArgs<T>& args) {
  return tile_attention_fits(args) && (kSelf || !args.distance_bias);
}

}  // namespace xlate::cuda
