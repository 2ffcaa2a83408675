// A network with its weights, as plain data: what models/programs.cpp makes programs of. Names no
// family; a tensor that is empty is absent.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/activation.h"
#include "engine/layers.h"

namespace xlate {

struct SelfAttention {
  Linear queries_keys_values;  // one product: [3·D, D]
  Linear out;                  // [D, D]
  Norm after;                  // of the sum with the residual stream
};

/// Attention to the source, whose keys and values are made for all layers at once.
struct CrossAttention {
  Linear query;  // [D, D]
  Linear out;    // [D, D]
  Norm after;
};

struct FeedForward {
  Linear up;    // [F, D]
  Linear down;  // [D, F]
  Norm after;
};

struct EncoderLayer {
  SelfAttention self;
  FeedForward feed_forward;
};

struct DecoderLayer {
  SelfAttention self;
  CrossAttention cross;
  FeedForward feed_forward;
};

/// What all layers of a stack have in common, and where its rows begin.
struct Stack {
  std::int64_t width = 0;  // D
  std::int64_t inner = 0;  // F
  int heads = 0;
  Activation activation = Activation::kNone;
  Embedding embedding;
  Norm embedding_norm;  // of a token and its position, or absent
};

struct Network {
  Stack encoder, decoder;
  std::vector<EncoderLayer> encoder_layers;
  std::vector<DecoderLayer> decoder_layers;
  Linear cross_keys_values;  // of all decoder layers: [layers·2·D, D], a layer's keys, then its
                             // values
  Projection projection;
};

}  // namespace xlate
