// The layers of a network with their weights, as plain data. A tensor that is empty is absent.
// Letters: V vocabulary, D model width, P positions.
#pragma once

#include "engine/tensor.h"

namespace xlate {

/// y = x·Wᵀ + b.
struct Linear {
  Tensor weight;  // [out, in]
  Tensor bias;    // [1, out] in the weight's type; may be empty
};

/// Layer norm (Ba, Kiros, Hinton 2016), in float32: (x − mean) / √(variance + ε)·gain + bias.
struct Norm {
  Tensor gain;  // [1, D], float32
  Tensor bias;  // [1, D], float32
  float epsilon = 1e-5f;
};

struct Embedding {
  Tensor table;      // [V, D]
  Tensor positions;  // [P, D], float32: row p is added to a token at position p
  float scale = 1;   // of the table's rows, before the position is added
};

/// The projection onto the vocabulary. It belongs to search, so that a backend may fuse it with the
/// selection.
struct Projection {
  Linear linear;  // weight [V, D]; bias [1, V] in float32, as the logits
};

}  // namespace xlate
