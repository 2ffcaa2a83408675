// Holds what a model file says of its network, as plain numbers and without the name of a family:
// the "network" of docs/model-format.md.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <algorithm>
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

/// Describes the attention of all layers of a stack (Vaswani et al. 2017). Where there is an
/// encoder, no backend computes `softcap`, `query_key_norm`, `slope`, `rotary_dims`, `windows` or
/// fewer key heads than heads yet: describe_network refuses every value of these fields that
/// changes the result.
struct AttentionDescription {
  // Queries have `heads` heads of `head` columns. Keys and values have `kv_heads`, a divisor of
  // `heads`.
  std::int64_t heads = 0, kv_heads = 0, head = 0;
  // Multiplies the scores before the softmax.
  float scale = 1;
  // Replaces a score s, once it is scaled, by softcap·tanh(s / softcap); 0 means no bound.
  float softcap = 0;
  // Applies a norm of its own to the columns of every head of the queries, and one to those of the
  // keys, before they are rotated. Its kind and epsilon are those of the stack.
  bool query_key_norm = false;
  // A bias that depends on the distance from the query to the key is added to the scores of
  // self-attention. Distances up to this one have a bias of their own. 0 means that there is none.
  std::int64_t distances = 0;
  // A slope for each head, times the key's position less the query's, is added to the scores (Press
  // et al. 2022).
  bool slope = false;
  // Rotates the first `rotary_dims` columns of a head by the position (Su et al. 2021). Column j
  // and column j + rotary_dims / 2 are a pair.
  std::int64_t rotary_dims = 0;
  // [layers]; the row of the table of rates that a layer is rotated by, or −1 if it is not rotated.
  // If empty, all layers are rotated by row 0.
  std::vector<std::int64_t> rates{};
  // [layers]; a query at position p sees the keys from p − window + 1 to p, and with 0 all of them.
  // If empty, no layer has a window.
  std::vector<std::int64_t> windows{};

  /// Returns the number of rows of the table of rates, [rows, rotary_dims / 2]. It is 0 if no layer
  /// is rotated.
  std::int64_t rate_rows() const {
    if (rotary_dims == 0) return 0;
    return rates.empty() ? 1 : *std::max_element(rates.begin(), rates.end()) + 1;
  }
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
  // read norms of the same x, and x = x + the sum of their outputs.
  bool causal = false, parallel = false;
  float residual_scale = 1;
  EmbeddingDescription embedding;
  NormDescription norm;
  AttentionDescription attention;
  FeedForwardDescription feed_forward;
};

/// Describes an encoder-decoder Transformer, or a decoder alone, which continues a prompt.
struct NetworkDescription {
  // Without an encoder, this stack has no layers.
  StackDescription encoder;
  StackDescription decoder;
  // The logits are multiplied by the scale and then bounded by the softcap, of which 0 means no
  // bound. describe_network refuses every scale but 1 where the decoder has no final norm.
  float output_scale = 1;
  float output_softcap = 0;
  // Values of the network may exceed what float16 can hold, but not what bfloat16 can.
  bool overflows_float16 = false;

  bool has_encoder() const { return encoder.layers > 0; }
  /// Returns the stack that reads the source, or the prompt where there is no encoder.
  const StackDescription& reader() const { return has_encoder() ? encoder : decoder; }
};

/// Reads and checks the header's "network", or in format version 1 its "config". `file` names the
/// file in messages. Throws Error that names the key, what was expected and what was found, also
/// for every value that no backend computes yet.
NetworkDescription describe_network(const nlohmann::json& header, std::uint32_t version,
                                    const std::string& file);

}  // namespace xlate
