// Network: an encoder-decoder Transformer (Vaswani et al. 2017), or a decoder alone, with its
// weights, as plain data. models/programs.cpp makes programs of it. Nothing here depends on a
// family of models. A tensor without data is absent. In shapes D is the model width and F the width
// inside a feed-forward layer.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/activation.h"
#include "engine/layers.h"

namespace xlate {

/// The norms of a sublayer f: x = after(x + scale · inside(f(before(x)))), where x is the residual
/// stream and the scale is Stack::residual_scale. Each of them may be absent.
struct SublayerNorms {
  Norm before, inside, after;
};

/// Self-attention. One product gives the queries, keys and values of a row, in this order. A is
/// Attention::width(), and A' is Attention::key_width().
struct SelfAttention {
  Linear queries_keys_values;  // [A + 2·A', D]
  Linear out;                  // [D, A]
  SublayerNorms norms;
  HeadTransform transform;
  std::int64_t window = 0;  // It takes the place of Attention::window of the stack.
};

/// Cross-attention to the source. Network::cross_keys_values gives the keys and values of all
/// layers.
struct CrossAttention {
  Linear query;  // [A, D]
  Linear out;    // [D, A]
  SublayerNorms norms;
  explicit operator bool() const { return static_cast<bool>(query); }
};

/// The feed-forward sublayer: down(activation(up(x))). A gated one is down(activation(g)·u), where
/// g and u are the two halves of up(x).
struct FeedForward {
  Linear up;    // [F, D], or [2·F, D] if it is gated
  Linear down;  // [D, F]
  SublayerNorms norms;
};

/// One layer of the encoder: its sublayers in the order in which they are applied.
struct EncoderLayer {
  SelfAttention self;
  FeedForward feed_forward;
};

/// One layer of the decoder: its sublayers in the order in which they are applied.
struct DecoderLayer {
  SelfAttention self;
  CrossAttention cross;  // It is absent in a decoder alone.
  FeedForward feed_forward;
};

/// What all layers of the encoder or of the decoder have in common, and the embedding that their
/// input comes from.
struct Stack {
  std::int64_t width = 0;  // D
  std::int64_t inner = 0;  // F
  // `cross` is used in a decoder alone.
  Attention self, cross;
  // What the sublayers compute is multiplied by it before it is added to the residual stream.
  float residual_scale = 1;
  // Self-attention and feed-forward of a layer read norms of the same residual stream (Wang and
  // Komatsuzaki 2021). They have a norm before each of them then, and none after.
  bool parallel = false;
  // These two belong to the feed-forward layers.
  Activation activation = Activation::kNone;
  bool gated = false;
  Embedding embedding;
  Norm embedding_norm;  // It is applied to the embeddings, or it is absent.
  Norm final_norm;      // It is applied behind the last layer, or it is absent.
};

/// The whole network. A decoder alone, which continues a prompt, has no encoder layers.
struct Network {
  Stack encoder, decoder;
  std::vector<EncoderLayer> encoder_layers;
  std::vector<DecoderLayer> decoder_layers;
  // One product gives the source's keys and values for all decoder layers, [layers·2·A, D]: for
  // each layer first its keys, then its values.
  Linear cross_keys_values;
  Projection projection;

  bool has_encoder() const { return !encoder_layers.empty(); }
};

}  // namespace xlate
