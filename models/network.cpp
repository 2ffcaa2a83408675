// Visits every tensor of a model file by its name and shape (the table "Tensors" of
// docs/model-format.md), and puts it into its place in a Network.
#include "models/network.h"

#include "engine/error.h"
#include "models/weights.h"

namespace xlate {
namespace {

// Loads one network. Every function loads the tensors of one part. Their names begin with its first
// argument, which is a name or a layer.
class Visitor {
 public:
  Visitor(const ModelFile& file, Backend& backend, Queue& queue)
      : described_(file.description().network), weights_(file, backend, queue) {}

  LoadedNetwork visit() {
    const StackDescription &encoder = described_.encoder, &decoder = described_.decoder;
    Network network;
    network.encoder = stack("encoder", encoder, 1);
    // The scale of the logits goes into the decoder's final norm, whose rows the projection alone
    // reads, and into the projection's bias.
    network.decoder = stack("decoder", decoder, described_.output_scale);
    for (std::int64_t i = 0; i < encoder.layers; ++i) {
      const Layer layer{"encoder", i, encoder};
      network.encoder_layers.push_back({self(layer), feed_forward(layer)});
    }
    for (std::int64_t i = 0; i < decoder.layers; ++i) {
      const Layer layer{"decoder", i, decoder};
      network.decoder_layers.push_back({self(layer), cross(layer), feed_forward(layer)});
    }
    const std::string keys_values = "decoder.cross.keys_values";
    network.cross_keys_values =
        weights_.linear(keys_values, keys_values,
                        2 * network.decoder.cross.width() * decoder.layers, encoder.width);
    network.projection.linear = weights_.projection(
        "decoder.projection", decoder.embedding.vocabulary, decoder.width, described_.output_scale);
    return {std::move(network), weights_.release()};
  }

 private:
  // A layer of a stack. All layers have the biases and shifts that the first one has.
  struct Layer {
    const char* stack;
    std::int64_t index;
    const StackDescription& described;

    std::string name(const std::string& part) const { return at(index, part); }
    std::string first(const std::string& part) const { return at(0, part); }
    std::string at(std::int64_t layer, const std::string& part) const {
      return fmt::format("{}.{}.{}", stack, layer, part);
    }
    std::int64_t attention_width() const {
      return described.attention.heads * described.attention.head;
    }
  };

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
    // Cross-attention differs from self-attention only in that it has no distance bias.
    stack.cross = stack.self;
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
    return weights_.norm(name, name, described.width, described.norm.kind, described.norm.epsilon,
                         scale);
  }
  Norm norm(const Layer& layer, const std::string& part) {
    const StackDescription& described = layer.described;
    return weights_.norm(layer.name(part), layer.first(part), described.width, described.norm.kind,
                         described.norm.epsilon);
  }
  Linear linear(const Layer& layer, const std::string& part, std::int64_t out, std::int64_t in) {
    return weights_.linear(layer.name(part), layer.first(part), out, in);
  }
  SublayerNorms norms(const Layer& layer, const std::string& sublayer) {
    SublayerNorms norms;
    if (layer.described.norm.before) norms.before = norm(layer, sublayer + ".norm_before");
    if (layer.described.norm.after) norms.after = norm(layer, sublayer + ".norm_after");
    return norms;
  }
  SelfAttention self(const Layer& layer) {
    const std::int64_t width = layer.described.width, heads = layer.attention_width();
    return {linear(layer, "self.qkv", 3 * heads, width), linear(layer, "self.out", width, heads),
            norms(layer, "self")};
  }
  CrossAttention cross(const Layer& layer) {
    const std::int64_t width = layer.described.width, heads = layer.attention_width();
    return {linear(layer, "cross.query", heads, width), linear(layer, "cross.out", width, heads),
            norms(layer, "cross")};
  }
  FeedForward feed_forward(const Layer& layer) {
    const auto& [inner, activation, gated] = layer.described.feed_forward;
    const std::int64_t width = layer.described.width;
    return {linear(layer, "feed_forward.up", gated ? 2 * inner : inner, width),
            linear(layer, "feed_forward.down", width, inner), norms(layer, "feed_forward")};
  }

  const NetworkDescription& described_;
  Weights weights_;
};

}  // namespace

LoadedNetwork load_network(const ModelFile& file, Backend& backend, Queue& queue) {
  return Visitor(file, backend, queue).visit();
}

}  // namespace xlate
