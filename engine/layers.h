// The layers of a network with their weights, as plain data. A tensor without data is absent. In
// shapes V is the size of the vocabulary, D the model width, and P the number of positions.
#pragma once

#include "engine/tensor.h"

namespace xlate {

/// A linear layer: y = x·Wᵀ + b.
struct Linear {
  Tensor weight;  // [out, in]
  Tensor bias;    // [1, out] in the weight's type, or absent
};

/// Layer norm: (x − mean) / √(variance + ε) · gain + bias for each row x of D values, in float32
/// (Ba, Kiros and Hinton 2016).
struct Norm {
  Tensor gain;  // [1, D], float32
  Tensor bias;  // [1, D], float32
  float epsilon = 1e-5f;
};

/// The embedding of a token at a position: table[token] · scale + positions[position].
struct Embedding {
  Tensor table;      // [V, D]
  Tensor positions;  // [P, D], float32
  float scale = 1;
};

/// The projection of hidden rows onto the vocabulary, which gives the logits. It is a part of
/// search and not of a program, so that a backend may fuse it with the selection of candidates.
struct Projection {
  // The weight is [V, D]. The bias is [1, V] in float32, the type of the logits, or absent.
  Linear linear;
};

}  // namespace xlate
