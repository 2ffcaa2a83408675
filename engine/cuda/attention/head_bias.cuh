// The bias that attention adds to the score of a query and a key, by how far the key is from the
// query (Attention::distance_bias in engine/layers.h).
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

}  // namespace xlate::cuda
