// Holds what a model file says of its network, as plain numbers and without the name of a family:
// the "network" of docs/model-format.md.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/activation.h"
#include "engine/layers.h"

namespace xlate {

/// Says what is added to an embedding: nothing, a row of a stored table, or computed sinusoids
/// (Vaswani et al. 2017).
enum class Positions : std::uint8_t { kNone, kLearned, kSinusoidal };

/// Describes the row with which a token enters the residual stream: its row of the embedding [V, D]
/// times `scale`, plus its position, with a norm on the sum if `norm` is true.
struct EmbeddingDescription {
  std::int64_t vocabulary = 0;  // V
  float scale = 1;
  Positions positions = Positions::kNone;
  // A table of learned positions has this many rows, and no sentence may be longer.
  std::int64_t rows = 0;
  // Pair j of the columns of sinusoidal positions has the angle (p + offset) / 10000^(j / rate) at
  // token p; both count from 0. Column j has its sine, and column D/2 + j its cosine.
  std::int64_t offset = 0;
  double rate = 0;
  // A source token with this id has no sinusoidal position: nothing is added to its embedding, and
  // the tokens behind it are counted as if it were not there. With −1 every token has one.
  std::int64_t unplaced = -1;
  bool norm = false;
};

/// Says where a sublayer f has norms: x = after(x + residual_scale · inside(f(before(x)))). `final`
/// means one more norm behind the last layer. Post-norm is `after` alone, and pre-norm is `before`
/// with `final`.
struct NormDescription {
  NormKind kind = NormKind::kLayer;
  float epsilon = 1e-5f;
  bool before = false, inside = false, after = false, final = false;
};

/// Describes the attention of all layers of a stack (Vaswani et al. 2017). No backend computes
/// `softcap`, `query_key_norm`, `slope`, `rotary_dims`, `windows` or fewer key heads than heads
/// yet: describe_network refuses every value of these fields that changes the result.
struct AttentionDescription {
  // Queries have `heads` heads of `head` columns. Keys and values have `kv_heads`, a divisor of
  // `heads`.
  std::int64_t heads = 0, kv_heads = 0, head = 0;
  // Multiplies the scores before the softmax.
  float scale = 1;
  // Bounds the scores; 0 means no bound.
  float softcap = 0;
  // Applies norms to queries and keys.
  bool query_key_norm = false;
  // A bias that depends on the distance from the query to the key is added to the scores of
  // self-attention. Distances up to this one have a bias of their own. 0 means that there is none.
  std::int64_t distances = 0;
  // A slope for each head times the distance is added to the scores.
  bool slope = false;
  // Rotates this many columns of a head by the position; 0 means none.
  std::int64_t rotary_dims = 0;
  // [layers]; a query sees this many keys, and with 0 all of them. If empty, no layer has a window.
  std::vector<std::int64_t> windows{};
};

/// Describes the feed-forward sublayers of a stack: down(activation(up(x))), with F columns between
/// the two products.
struct FeedForwardDescription {
  std::int64_t width = 0;  // F
  Activation activation = Activation::kRelu;
  // Multiplies the activation by a second projection of x.
  bool gated = false;
};

/// Describes the encoder or the decoder, whose layers are alike.
struct StackDescription {
  // The residual stream has `width` columns, D.
  std::int64_t layers = 0, width = 0;
  // With `causal`, self-attention sees no later token. With `parallel`, all sublayers of a layer
  // read the same x, which describe_network refuses.
  bool causal = false, parallel = false;
  float residual_scale = 1;
  EmbeddingDescription embedding;
  NormDescription norm;
  AttentionDescription attention;
  FeedForwardDescription feed_forward;
};

/// Describes an encoder-decoder Transformer.
struct NetworkDescription {
  StackDescription encoder, decoder;
  // The logits are multiplied by the scale and bounded by the softcap, of which 0 means no bound.
  // describe_network refuses every softcap but 0, and every scale but 1 where the decoder has no
  // final norm.
  float output_scale = 1;
  float output_softcap = 0;
  // Values of the network may exceed what float16 can hold, but not what bfloat16 can.
  bool overflows_float16 = false;
};

/// Reads and checks the header's "network", or in format version 1 its "config". `file` names the
/// file in messages. Throws Error that names the key, what was expected and what was found, also
/// for every value that no backend computes yet.
NetworkDescription describe_network(const nlohmann::json& header, std::uint32_t version,
                                    const std::string& file);

}  // namespace xlate
