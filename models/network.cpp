// Visits every tensor of a model file by its name and shape (the table "Tensors" of
// docs/model-format.md), and puts it into its place in a Network.
#include "models/network.h"

#include "engine/error.h"
#include "models/weights.h"

namespace xlate {
namespace {

// Loads one network. Every function loads the tensors of one part, whose names begin with its first
// argument.
class Visitor {
 public:
  Visitor(const ModelFile& file, Backend& backend, Queue& queue)
      : described_(file.description().network), weights_(file, backend, queue) {}

  LoadedNetwork visit() {
    const StackDescription &encoder = described_.encoder, &decoder = described_.decoder;
    Network network;
    network.encoder = stack("encoder", encoder, 1);
    // What the logits are scaled by goes into the gain of the norm before them: nobody else reads
    // its rows.
    network.decoder = stack("decoder", decoder, described_.output_scale);
    for (std::int64_t i = 0; i < encoder.layers; ++i) {
      const std::string name = fmt::format("encoder.{}", i);
      network.encoder_layers.push_back({self(name, encoder), feed_forward(name, encoder)});
    }
    for (std::int64_t i = 0; i < decoder.layers; ++i) {
      const std::string name = fmt::format("decoder.{}", i);
      network.decoder_layers.push_back(
          {self(name, decoder), cross(name, decoder), feed_forward(name, decoder)});
    }
    network.cross_keys_values =
        weights_.linear("decoder.cross.keys_values",
                        2 * network.decoder.cross.width() * decoder.layers, encoder.width);
    network.projection.linear =
        weights_.projection("decoder.projection", decoder.embedding.vocabulary, decoder.width);
    return {std::move(network), weights_.release()};
  }

 private:
  Stack stack(const std::string& name, const StackDescription& described, float final_scale) {
    const EmbeddingDescription& embedding = described.embedding;
    const AttentionDescription& attention = described.attention;
    Stack stack{.width = described.width,
                .inner = described.feed_forward.width,
                .self = {static_cast<int>(attention.heads), attention.head, attention.scale, {}},
                .cross = {},
                .activation = described.feed_forward.activation,
                .gated = described.feed_forward.gated,
                .embedding = {weights_.matrix(name + ".embedding.weight", embedding.vocabulary,
                                              described.width),
                              {},
                              embedding.scale},
                .embedding_norm = {},
                .final_norm = {}};
    stack.cross = stack.self;  // what has no distances in it is the same
    if (attention.distances > 0)
      stack.self.distance_bias = weights_.table(name + ".self.distance_bias", attention.heads,
                                                2 * attention.distances + 1);
    if (embedding.positions == Positions::kLearned)
      stack.embedding.positions =
          weights_.table(name + ".positions.weight", embedding.rows, described.width);
    if (embedding.norm) stack.embedding_norm = norm(name + ".embedding.norm", described);
    if (described.norm.final) stack.final_norm = norm(name + ".norm", described, final_scale);
    return stack;
  }
  Norm norm(const std::string& name, const StackDescription& described, float scale = 1) {
    return weights_.norm(name, described.width, described.norm.kind, described.norm.epsilon, scale);
  }
  SublayerNorms norms(const std::string& sublayer, const StackDescription& described) {
    SublayerNorms norms;
    if (described.norm.before) norms.before = norm(sublayer + ".norm_before", described);
    if (described.norm.after) norms.after = norm(sublayer + ".norm_after", described);
    return norms;
  }
  SelfAttention self(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".self";
    const std::int64_t width = described.attention.heads * described.attention.head;
    return {weights_.linear(name + ".qkv", 3 * width, described.width),
            weights_.linear(name + ".out", described.width, width), norms(name, described)};
  }
  CrossAttention cross(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".cross";
    const std::int64_t width = described.attention.heads * described.attention.head;
    return {weights_.linear(name + ".query", width, described.width),
            weights_.linear(name + ".out", described.width, width), norms(name, described)};
  }
  FeedForward feed_forward(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".feed_forward";
    const std::int64_t width = described.width, inner = described.feed_forward.width;
    return {weights_.linear(name + ".up", described.feed_forward.gated ? 2 * inner : inner, width),
            weights_.linear(name + ".down", width, inner), norms(name, described)};
  }

  const NetworkDescription& described_;
  Weights weights_;
};

}  // namespace

LoadedNetwork load_network(const ModelFile& file, Backend& backend, Queue& queue) {
  return Visitor(file, backend, queue).visit();
}

}  // namespace xlate
