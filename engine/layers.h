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

/// Layer norm is (x − mean) / √(variance + ε) · gain + shift for each row x of D values (Ba, Kiros
/// and Hinton 2016). RMS norm is x / √(mean of x² + ε) · gain + shift (Zhang and Sennrich 2019).
enum class NormKind : std::uint8_t { kLayer, kRms };

/// A norm of rows, computed in float32. A norm without a gain is absent.
struct Norm {
  Tensor gain;   // [1, D], float32
  Tensor shift;  // [1, D], float32, or absent
  float epsilon = 1e-5f;
  NormKind kind = NormKind::kLayer;
  explicit operator bool() const { return static_cast<bool>(gain); }
};

/// The attention of a stack's layers, apart from its products (Vaswani et al. 2017). Queries, keys
/// and values of a token are `heads` heads of `head` columns each; heads·head need not be D. The
/// score of a query and a key is their dot product times `scale`, plus a bias that depends on how
/// far the key is from the query (Raffel et al. 2020).
struct Attention {
  int heads = 1;
  std::int64_t head = 1;
  float scale = 1;
  // [heads, 2·M + 1] in float32, or absent. Column M + d has the bias of a key that stands d
  // positions after the query, or before it if d is negative. Keys that are further away than M
  // have the bias of the last column on their side.
  Tensor distance_bias;

  std::int64_t width() const { return heads * head; }
};

/// The embedding of a token at a position: table[token] · scale + positions[position].
struct Embedding {
  Tensor table;      // [V, D]
  Tensor positions;  // [P, D], float32, or absent
  float scale = 1;
};

/// The projection of hidden rows onto the vocabulary, which gives the logits. It is a part of
/// search and not of a program, so that a backend may fuse it with the selection of candidates.
struct Projection {
  // The weight is [V, D]. The bias is [1, V] in float32, the type of the logits, or absent.
  Linear linear;
};

}  // namespace xlate
