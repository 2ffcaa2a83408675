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
    Network network;
    network.encoder = stack("encoder", described_.encoder);
    network.decoder = stack("decoder", described_.decoder);
    for (std::int64_t i = 0; i < described_.encoder.layers; ++i) {
      const std::string name = fmt::format("encoder.{}", i);
      network.encoder_layers.push_back(
          {self(name, described_.encoder), feed_forward(name, described_.encoder)});
    }
    for (std::int64_t i = 0; i < described_.decoder.layers; ++i) {
      const std::string name = fmt::format("decoder.{}", i);
      network.decoder_layers.push_back({self(name, described_.decoder),
                                        source(name, described_.decoder),
                                        feed_forward(name, described_.decoder)});
    }
    const std::int64_t width = described_.decoder.width;
    network.cross_keys_values =
        weights_.linear("decoder.cross.keys_values", 2 * width * described_.decoder.layers, width);
    network.projection.linear =
        weights_.projection("decoder.projection", described_.decoder.embedding.vocabulary, width);
    return {std::move(network), weights_.release()};
  }

 private:
  Stack stack(const std::string& name, const StackDescription& described) {
    const EmbeddingDescription& embedding = described.embedding;
    Stack stack{.width = described.width,
                .inner = described.feed_forward.width,
                .heads = static_cast<int>(described.attention.heads),
                .activation = described.feed_forward.activation,
                .embedding = {weights_.matrix(name + ".embedding.weight", embedding.vocabulary,
                                              described.width),
                              {},
                              embedding.scale},
                .embedding_norm = {}};
    if (embedding.positions == Positions::kLearned) {
      stack.embedding.positions =
          weights_.positions(name + ".positions.weight", embedding.rows, described.width);
    }
    if (embedding.norm)
      stack.embedding_norm =
          weights_.norm(name + ".embedding.norm", described.width, described.norm.epsilon);
    return stack;
  }
  Norm after(const std::string& sublayer, const StackDescription& described) {
    return weights_.norm(sublayer + ".norm_after", described.width, described.norm.epsilon);
  }
  SelfAttention self(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".self";
    const std::int64_t width = described.width;
    return {weights_.linear(name + ".qkv", 3 * width, width),
            weights_.linear(name + ".out", width, width), after(name, described)};
  }
  CrossAttention source(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".cross";
    const std::int64_t width = described.width;
    return {weights_.linear(name + ".query", width, width),
            weights_.linear(name + ".out", width, width), after(name, described)};
  }
  FeedForward feed_forward(const std::string& layer, const StackDescription& described) {
    const std::string name = layer + ".feed_forward";
    const std::int64_t width = described.width, inner = described.feed_forward.width;
    return {weights_.linear(name + ".up", inner, width),
            weights_.linear(name + ".down", width, inner), after(name, described)};
  }

  const NetworkDescription& described_;
  Weights weights_;
};

}  // namespace

LoadedNetwork load_network(const ModelFile& file, Backend& backend, Queue& queue) {
  return Visitor(file, backend, queue).visit();
}

}  // namespace xlate
