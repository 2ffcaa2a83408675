// What a model file says of its network, as plain numbers and without a family's name: "network" of
// docs/model-format.md.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/backend.h"

namespace xlate {

enum class NormKind : std::uint8_t { kLayer, kRms };
enum class Positions : std::uint8_t { kNone, kLearned, kSinusoidal };

struct EmbeddingDescription {
  std::int64_t vocabulary = 0;  // V
  float scale = 1;              // of a token's row, before its position is added
  Positions positions = Positions::kNone;
  std::int64_t rows = 0;    // of learned positions
  std::int64_t offset = 0;  // of sinusoidal ones: the first token's position
  double rate = 0;          // angle of position p in pair j: p / 10000^(j / rate)
  bool norm = false;        // a norm on the sum
};

/// Where a sublayer f has norms: x = after(x + scale·inside(f(before(x)))). `final`: one behind the
/// last layer.
struct NormDescription {
  NormKind kind = NormKind::kLayer;
  float epsilon = 1e-5f;
  bool before = false, inside = false, after = false, final = false;
};

struct AttentionDescription {
  std::int64_t heads = 0, kv_heads = 0, head = 0;  // `head`: the width of one
  float scale = 1;
  float softcap = 0;  // 0: none
  bool query_key_norm = false;
  bool distance_bias = false, slope = false;
  std::int64_t rotary_dims = 0;         // 0: none
  std::vector<std::int64_t> windows{};  // of each layer, 0: all keys; empty: none has one
};

struct FeedForwardDescription {
  std::int64_t width = 0;  // F
  Activation activation = Activation::kRelu;
  bool gated = false;
};

struct StackDescription {
  std::int64_t layers = 0, width = 0;
  bool causal = false, parallel = false;
  float residual_scale = 1;
  EmbeddingDescription embedding;
  NormDescription norm;
  AttentionDescription attention;
  FeedForwardDescription feed_forward;
};

struct NetworkDescription {
  StackDescription encoder, decoder;
  float output_scale = 1;
  float output_softcap = 0;  // 0: none
};

/// Reads and checks `header`'s "network", and of format version 1 its "config". `file` names the
/// file in errors. Throws Error naming the key, what was expected and what was found; also for what
/// no backend computes yet.
NetworkDescription describe_network(const nlohmann::json& header, std::uint32_t version,
                                    const std::string& file);

}  // namespace xlate
