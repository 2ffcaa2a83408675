// Makes scores of a query and keys: adds the bias that depends on how far a key is from the query
// (Attention::distance_bias in engine/layers.h), and does all else that Attention can ask for.
#pragma once

#include "engine/cuda/attention/attention.h"

namespace xlate::cuda {

// Has the biases of one head.
struct HeadBias {
  const float* middle;  // It points to the bias of distance zero. It is null without a bias.
  int distances;

  template <class T>
  __device__ HeadBias(const AttendArgs<T>& args, int head)
      : middle(args.distance_bias
                   ? args.distance_bias + head * (2 * args.distances + 1) + args.distances
                   : nullptr),
        distances(args.distances) {}
  // Returns the bias of a key that stands `distance` positions after the query, or before it if
  // `distance` is negative.
  template <class Integer>
  __device__ float of(Integer distance) const {
    if (!middle) return 0.0f;
    const Integer most = distances;
    return middle[distance < -most ? -most : distance > most ? most : distance];
  }
};

// Makes scores for one row and head from products of the query and keys, as Attention says
// (engine/layers.h).
struct HeadScores {
  float scale, softcap, slope;
  HeadBias bias;
  std::int64_t position;  // The query stands there.

  template <class T>
  __device__ HeadScores(const AttendArgs<T>& args, int head, std::int64_t position)
      : scale(args.scale),
        softcap(args.softcap),
        slope(args.slopes ? args.slopes[head] : 0.0f),
        bias(args, head),
        position(position) {}
  // Returns the score of the key at position t.
  __device__ float of(float product, std::int64_t t) const {
    float score = product * scale;
    if (softcap != 0) score = softcap * tanhf(score / softcap);
    return fmaf(slope, static_cast<float>(t - position), score) + bias.of(t - position);
  }
};

}  // namespace xlate::cuda
