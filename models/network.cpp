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

  Network visit() {
    const StackDescription& decoder = described_.decoder;
    Network network;
    if (described_.has_encoder()) visit_encoder(network);
    // The scale of the logits goes into the decoder's final norm, whose rows the projection alone
    // reads, and into the projection's bias.
    network.decoder = stack("decoder", decoder, described_.output_scale);
    if (decoder.attention.rate_rows() > 0)
      rates_ = weights_.table("decoder.rotary.rates", decoder.attention.rate_rows(),
                              decoder.attention.rotary_dims / 2);
    for (std::int64_t i = 0; i < decoder.layers; ++i) {
      const Layer layer{"decoder", i, decoder};
      network.decoder_layers.push_back({self(layer),
                                        described_.has_encoder() ? cross(layer) : CrossAttention{},
                                        feed_forward(layer)});
    }
    if (described_.has_encoder()) {
      const std::string keys_values = "decoder.cross.keys_values";
      network.cross_keys_values = weights_.linear(
          keys_values, keys_values, 2 * network.decoder.cross.width() * decoder.layers,
          described_.encoder.width);
    }
    network.projection = {weights_.projection("decoder.projection", decoder.embedding.vocabulary,
                                              decoder.width, described_.output_scale),
                          described_.output_softcap};
    return network;
  }
  std::vector<Buffer> release() { return weights_.release(); }

 private:
  void visit_encoder(Network& network) {
    const StackDescription& encoder = described_.encoder;
    network.encoder = stack("encoder", encoder, 1);
    for (std::int64_t i = 0; i < encoder.layers; ++i) {
      const Layer layer{"encoder", i, encoder};
      network.encoder_layers.push_back({self(layer), feed_forward(layer)});
    }
  }

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
    std::int64_t key_width() const {
      return described.attention.kv_heads * described.attention.head;
    }
  };

  Stack stack(const std::string& name, const StackDescription& described, float final_scale) {
    const EmbeddingDescription& embedding = described.embedding;
    const AttentionDescription& attention = described.attention;
    Stack stack{.width = described.width,
                .inner = described.feed_forward.width,
                .self = {static_cast<int>(attention.heads), attention.head, attention.scale, {}},
                .cross = {},
                .residual_scale = described.residual_scale,
                .parallel = described.parallel,
                .activation = described.feed_forward.activation,
                .gated = described.feed_forward.gated,
                .embedding = {weights_.matrix(name + ".embedding.weight", embedding.vocabulary,
                                              described.width),
                              {},
                              embedding.scale},
                .embedding_norm = {},
                .final_norm = {}};
    // Cross-attention has only what these fields say.
    stack.cross = stack.self;
    stack.self.key_heads = static_cast<int>(attention.kv_heads);
    stack.self.softcap = attention.softcap;
    if (attention.slope)
      stack.self.slopes = weights_.numbers(name + ".self.slopes", attention.heads);
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
    if (layer.described.norm.inside) norms.inside = norm(layer, sublayer + ".norm_inside");
    if (layer.described.norm.after) norms.after = norm(layer, sublayer + ".norm_after");
    return norms;
  }
  SelfAttention self(const Layer& layer) {
    const AttentionDescription& attention = layer.described.attention;
    const std::int64_t width = layer.described.width, heads = layer.attention_width();
    return {
        linear(layer, "self.qkv", heads + 2 * layer.key_width(), width),
        linear(layer, "self.out", width, heads), norms(layer, "self"), transform(layer),
        attention.windows.empty() ? 0 : attention.windows[static_cast<std::size_t>(layer.index)]};
  }
  HeadTransform transform(const Layer& layer) {
    const AttentionDescription& attention = layer.described.attention;
    const auto head_norm = [&](const std::string& part) {
      return weights_.norm(layer.name(part), layer.first(part), attention.head,
                           layer.described.norm.kind, layer.described.norm.epsilon);
    };
    HeadTransform transform;
    if (attention.query_key_norm) {
      transform.query_norm = head_norm("self.query_norm");
      transform.key_norm = head_norm("self.key_norm");
    }
    const std::int64_t row =
        attention.rates.empty() ? 0 : attention.rates[static_cast<std::size_t>(layer.index)];
    if (rates_ && row >= 0) transform.rates = rates_.row_range(row, 1);
    return transform;
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
  Tensor rates_;  // Queries and keys are rotated by them. It may be absent.
};

}  // namespace

LoadedNetwork load_network(const ModelFile& file, Backend& backend) {
  std::shared_ptr<Queue> queue = backend.make_queue();
  Visitor visitor(file, backend, *queue);
  Network network = visitor.visit();
  return {file.description().network, std::move(network),
          std::make_shared<const std::vector<Buffer>>(visitor.release()), std::move(queue)};
}

}  // namespace xlate
