// The layers of a network with their weights, as plain data. A tensor without data is absent. In
// shapes V is the size of the vocabulary, D the model width, and P the number of positions.
#pragma once

#include <memory>

#include "engine/tensor.h"

namespace xlate {

/// Owns weights in a backend's own layout (Backend::pack).
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
};

/// A linear layer: y = x·Wᵀ + b.
struct Linear {
  // It is [out, in]. If the weights are packed, it has their shape, but no data.
  Tensor weight;
  Tensor bias;  // [1, out] in the weight's type, or absent
  // It is null if the weights are plain.
  std::shared_ptr<const PackedWeight> packed{};
  explicit operator bool() const { return weight || packed; }
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

/// Holds what is added to the residual stream at the end of a sublayer: scale · inside(rows).
struct Addend {
  Tensor rows;  // [N, D]. If it is absent, nothing is added.
  Norm inside;  // It may be absent.
  float scale = 1;
  Addend() = default;
  /// Converts implicitly, so that a plain tensor can be passed as rows that are added as they are.
  Addend(const Tensor& rows, const Norm& inside = {}, float scale = 1)
      : rows(rows), inside(inside), scale(scale) {}
  explicit operator bool() const { return static_cast<bool>(rows); }
};

/// The attention of a layer, apart from its products (Vaswani et al. 2017). Queries of a token are
/// `heads` heads of `head` columns each; heads·head need not be D. The score of a query and a key
/// is their dot product times `scale`, which the softcap bounds, plus biases that depend on how far
/// the key is from the query.
struct Attention {
  int heads = 1;
  std::int64_t head = 1;
  float scale = 1;
  // [heads, 2·M + 1] in float32, or absent. Column M + d has the bias of a key that stands d
  // positions after the query, or before it if d is negative. Keys that are further away than M
  // have the bias of the last column on their side (Raffel et al. 2020).
  Tensor distance_bias;
  // Keys and values have this many heads, a divisor of `heads`. Each of them serves heads /
  // key_heads consecutive heads of queries (Ainslie et al. 2023). 0 stands for as many as queries
  // have.
  int key_heads = 0;
  // If it is not 0, a score s becomes softcap · tanh(s / softcap) before biases are added.
  float softcap = 0;
  // If it is not 0, a query of a decoder sees only this many keys: its own and those before it.
  std::int64_t window = 0;
  // [1, heads] in float32, or absent. The slope of a head times the distance of the key, which is
  // negative for keys before the query, is added to the score (Press et al. 2022).
  Tensor slopes{};

  std::int64_t width() const { return heads * head; }
  /// Returns the number of columns of a key, and of a value.
  std::int64_t key_width() const { return (key_heads > 0 ? key_heads : heads) * head; }
  /// Returns the number of heads of queries that share a head of keys.
  int group() const { return key_heads > 0 ? heads / key_heads : 1; }
};

/// Says what happens to each head of the queries and keys before their scores: a norm, and then a
/// rotation by the position of the token (Su et al. 2021).
struct HeadTransform {
  // The gains and shifts are [1, head]. Both norms may be absent.
  Norm query_norm, key_norm;
  // [1, R] in float32, or absent. At position p, columns j and R + j of a head are rotated by the
  // angle p · rates[j]. Columns from 2·R on stay as they are.
  Tensor rates;
  explicit operator bool() const { return query_norm || key_norm || rates; }
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
  // If it is not 0, a logit y becomes softcap · tanh(y / softcap).
  float softcap = 0;
};

}  // namespace xlate
