// Reads the description of a network from a model file's header, and refuses what no backend can
// compute.
#include "models/network_description.h"

#include <algorithm>
#include <cmath>

#include "models/section.h"

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxSize = Section::kMaxSize;
constexpr std::int64_t kMaxLayers = 4096;
constexpr double kMaxScale = 1e6;

constexpr Choices<Activation, 4> kActivations{{{"relu", Activation::kRelu},
                                               {"swish", Activation::kSwish},
                                               {"gelu", Activation::kGelu},
                                               {"gelu_tanh", Activation::kGeluTanh}}};
constexpr Choices<NormKind, 2> kNormKinds{{{"layer", NormKind::kLayer}, {"rms", NormKind::kRms}}};
constexpr Choices<Positions, 3> kPositions{{{"none", Positions::kNone},
                                            {"learned", Positions::kLearned},
                                            {"sinusoidal", Positions::kSinusoidal}}};

EmbeddingDescription read_embedding(const Section& section) {
  EmbeddingDescription embedding;
  embedding.vocabulary = section.integer("vocabulary", 1, kMaxSize);
  embedding.scale = static_cast<float>(section.number("scale", -kMaxScale, kMaxScale));
  embedding.positions = section.choice("positions", kPositions);
  embedding.norm = section.flag("norm");
  if (embedding.positions == Positions::kLearned)
    embedding.rows = section.integer("rows", 1, kMaxSize);
  if (embedding.positions == Positions::kSinusoidal) {
    embedding.offset = section.integer("offset", 0, kMaxSize);
    embedding.rate = section.number("rate", 0.5, static_cast<double>(kMaxSize));
    if (section.has("unplaced"))
      embedding.unplaced = section.integer("unplaced", 0, embedding.vocabulary - 1);
  }
  return embedding;
}

NormDescription read_norm(const Section& section) {
  NormDescription norm{.kind = section.choice("kind", kNormKinds),
                       .epsilon = static_cast<float>(section.number("epsilon", 0, 1)),
                       .final = section.flag("final")};
  const json& places = section.at("places");
  if (!places.is_array()) section.wrong("places", "an array of before, inside and after", places);
  for (const json& place : places) {
    bool* named = place == "before"   ? &norm.before
                  : place == "inside" ? &norm.inside
                  : place == "after"  ? &norm.after
                                      : nullptr;
    if (!named || *named)
      section.wrong("places", "before, inside and after, each at most once", place);
    *named = true;
  }
  return norm;
}

// Reads an array that has a number from `least` to `most` for each layer. It is empty if the key is
// absent.
std::vector<std::int64_t> read_layers(const Section& section, const char* key, std::int64_t layers,
                                      std::int64_t least, std::int64_t most) {
  std::vector<std::int64_t> numbers;
  if (!section.has(key)) return numbers;
  const json& list = section.at(key);
  if (!list.is_array() || static_cast<std::int64_t>(list.size()) != layers)
    section.wrong(key, fmt::format("an array of {} numbers, one a layer", layers), list);
  for (const json& number : list) numbers.push_back(section.integer(number, key, least, most));
  return numbers;
}

// Reads what says how queries and keys are rotated.
void read_rotation(const Section& section, std::int64_t layers, AttentionDescription& attention) {
  if (section.has("rotary_dims"))
    attention.rotary_dims = section.integer("rotary_dims", 0, attention.head);
  if (attention.rotary_dims % 2 != 0)
    section.wrong("rotary_dims", "an even number", section.at("rotary_dims"));
  attention.rates = read_layers(section, "rates", layers, -1, layers - 1);
  if (!attention.rates.empty() && attention.rate_rows() == 0)
    section.wrong("rates", "none, as no layer is rotated", section.at("rates"));
}

AttentionDescription read_attention(const Section& section, std::int64_t layers) {
  AttentionDescription attention;
  attention.heads = section.integer("heads", 1, kMaxSize);
  attention.kv_heads = section.integer("kv_heads", 1, attention.heads);
  attention.head = section.integer("head", 1, kMaxSize);
  attention.scale = static_cast<float>(section.number("scale", 0, kMaxScale));
  if (attention.heads % attention.kv_heads != 0)
    section.wrong("kv_heads", fmt::format("a divisor of {} heads", attention.heads),
                  section.at("kv_heads"));
  if (section.has("softcap"))
    attention.softcap = static_cast<float>(section.number("softcap", 0, kMaxScale));
  attention.query_key_norm = section.flag("query_key_norm");
  if (section.has("distances")) attention.distances = section.integer("distances", 0, kMaxSize);
  attention.slope = section.flag("slope");
  read_rotation(section, layers, attention);
  attention.windows = read_layers(section, "windows", layers, 0, kMaxSize);
  return attention;
}

StackDescription read_stack(const Section& section) {
  StackDescription stack;
  stack.layers = section.integer("layers", 1, kMaxLayers);
  stack.width = section.integer("width", 2, kMaxSize);
  if (stack.width % 2 != 0) section.wrong("width", "an even number", section.at("width"));
  stack.causal = section.flag("causal");
  stack.parallel = section.flag("parallel");
  stack.residual_scale =
      static_cast<float>(section.number("residual_scale", -kMaxScale, kMaxScale));
  stack.embedding = read_embedding(section.inside("embedding"));
  stack.norm = read_norm(section.inside("norm"));
  stack.attention = read_attention(section.inside("attention"), stack.layers);
  const Section feed_forward = section.inside("feed_forward");
  stack.feed_forward = {.width = feed_forward.integer("width", 1, kMaxSize),
                        .activation = feed_forward.choice("activation", kActivations),
                        .gated = feed_forward.flag("gated")};
  return stack;
}

// Reads one stack of version 1, which knew one kind of network only: post-norm, with sinusoidal
// positions, and with heads of width / heads columns. describe() overrides the positions where the
// file has a stored table.
StackDescription stack_of_version_1(const Section& config, const std::string& name,
                                    const char* vocabulary) {
  const auto key = [&](const char* what) { return name + "_" + what; };
  StackDescription stack;
  stack.layers = config.integer(key("layers").c_str(), 1, kMaxLayers);
  stack.width = config.integer("d_model", 2, kMaxSize);
  const std::int64_t heads = config.integer(key("heads").c_str(), 1, stack.width);
  if (stack.width % heads != 0) {
    fail("{}: 'config.d_model' is {}, expected a multiple of 'config.{}', {}", config.file(),
         stack.width, key("heads"), heads);
  }
  if (stack.width % 2 != 0)
    fail("{}: 'config.d_model' is {}, expected an even number", config.file(), stack.width);
  stack.causal = name == "decoder";
  config.expect("norm", "post");
  config.expect("positions", "sinusoidal");
  stack.embedding = {
      .vocabulary = config.integer(vocabulary, 1, kMaxSize),
      .scale = static_cast<float>(config.number("embedding_scale", -kMaxScale, kMaxScale)),
      .positions = Positions::kSinusoidal,
      .rate = static_cast<double>(stack.width) / 2};
  stack.norm = {.epsilon = static_cast<float>(config.number("norm_epsilon", 0, 1)), .after = true};
  const std::int64_t head = stack.width / heads;
  stack.attention = {.heads = heads,
                     .kv_heads = heads,
                     .head = head,
                     .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head)))};
  stack.feed_forward = {.width = config.integer(key("ffn").c_str(), 1, kMaxSize),
                        .activation = config.choice("activation", kActivations)};
  return stack;
}

// Refuses a network that no backend can compute yet, by the name of the key that says so.
class Computable {
 public:
  explicit Computable(const std::string& file) : file_(file) {}

  void check(const NetworkDescription& network) const {
    if (network.has_encoder())
      check_both(network);
    else
      check_decoder(network.decoder);
    require(network.output_scale == 1 || network.decoder.norm.final, "output", "scale",
            "1 where the decoder has no final norm");
  }

 private:
  // Checks what either kind of network requires of a stack.
  void check_common(const StackDescription& stack, const std::string& name, bool decoder) const {
    const NormDescription& norm = stack.norm;
    require(stack.causal == decoder, name, "causal", decoder ? "true" : "false");
    require(norm.final || !norm.before || norm.after, name, "norm.final",
            "true where norms are before sublayers alone");
  }
  // Checks the decoder of a network that has no encoder.
  void check_decoder(const StackDescription& decoder) const {
    check_common(decoder, "decoder", true);
    const NormDescription& norm = decoder.norm;
    require(!decoder.parallel || (norm.before && !norm.inside && !norm.after), "decoder",
            "norm.places", "before where sublayers are parallel");
    require(decoder.embedding.positions != Positions::kSinusoidal, "decoder", "embedding.positions",
            "none or learned where there is no encoder");
    require(decoder.attention.distances == 0, "decoder", "attention.distances",
            "0 where there is no encoder");
  }
  // Checks one of the two stacks of an encoder-decoder network.
  void check_stack(const StackDescription& stack, const std::string& name, bool decoder) const {
    check_common(stack, name, decoder);
    const NormDescription& norm = stack.norm;
    const AttentionDescription& attention = stack.attention;
    require(!stack.parallel, name, "parallel", "false");
    require(stack.residual_scale == 1, name, "residual_scale", "1");
    require(!norm.inside, name, "norm.places", "before and after");
    require(attention.kv_heads == attention.heads, name, "attention.kv_heads", "as many as heads");
    require(attention.softcap == 0, name, "attention.softcap", "none");
    require(!attention.query_key_norm, name, "attention.query_key_norm", "false");
    require(!attention.slope, name, "attention.slope", "false");
    require(attention.rotary_dims == 0, name, "attention.rotary_dims", "0");
    require(std::all_of(attention.windows.begin(), attention.windows.end(),
                        [](std::int64_t window) { return window == 0; }),
            name, "attention.windows", "0 in all layers");
  }
  void check_both(const NetworkDescription& network) const {
    check_stack(network.encoder, "encoder", false);
    check_stack(network.decoder, "decoder", true);
    require(network.encoder.width == network.decoder.width, "encoder", "width", "the decoder's");
    require(network.decoder.embedding.unplaced < 0, "decoder", "embedding.unplaced", "none");
    // Both stacks share one table of computed positions.
    const EmbeddingDescription &source = network.encoder.embedding,
                               &target = network.decoder.embedding;
    const bool computed =
        source.positions == Positions::kSinusoidal && target.positions == Positions::kSinusoidal;
    require(!computed || source.offset == target.offset, "encoder", "embedding.offset",
            "the decoder's");
    require(!computed || source.rate == target.rate, "encoder", "embedding.rate", "the decoder's");
    require(network.output_softcap == 0, "output", "softcap", "none");
  }
  void require(bool computable, const std::string& part, const char* key,
               const char* expected) const {
    if (!computable)
      fail("{}: 'network.{}.{}': xlate computes no other yet than: {}", file_, part, key, expected);
  }
  const std::string& file_;
};

}  // namespace

NetworkDescription describe_network(const json& header, std::uint32_t version,
                                    const std::string& file) {
  NetworkDescription network;
  if (version == 1) {
    const Section config(header, "config", file);
    network.encoder = stack_of_version_1(config, "encoder", "source_vocabulary");
    network.decoder = stack_of_version_1(config, "decoder", "target_vocabulary");
    return network;
  }
  const Section section(header, "network", file);
  if (section.has("encoder")) network.encoder = read_stack(section.inside("encoder"));
  network.decoder = read_stack(section.inside("decoder"));
  const Section output = section.inside("output");
  network.output_scale = static_cast<float>(output.number("scale", -kMaxScale, kMaxScale));
  if (output.has("softcap"))
    network.output_softcap = static_cast<float>(output.number("softcap", 0, kMaxScale));
  network.overflows_float16 = section.flag("overflows_float16");
  Computable(file).check(network);
  return network;
}

}  // namespace xlate
