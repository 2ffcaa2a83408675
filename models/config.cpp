#include "models/config.h"

#include <nlohmann/json.hpp>

#include <array>
#include <utility>

#include "engine/error.h"

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxSize = std::int64_t{1} << 24;  // of any one number: products of two of them stay in 64 bits
constexpr std::int64_t kMaxLayers = 4096;

constexpr std::array<std::pair<const char*, Activation>, 4> kActivations{{
    {"relu", Activation::kRelu}, {"swish", Activation::kSwish}, {"gelu", Activation::kGelu}, {"gelu_tanh", Activation::kGeluTanh}}};
constexpr std::array<std::pair<const char*, EarlyStopping>, 3> kEarlyStopping{{
    {"true", EarlyStopping::kTrue}, {"false", EarlyStopping::kFalse}, {"never", EarlyStopping::kNever}}};

// One object of the header, with messages that say where a value stands.
class Section {
 public:
  Section(const json& header, const char* name, const std::string& file) : name_(name), file_(file) {
    const auto found = header.find(name);
    if (found == header.end() || !found->is_object()) fail("{}: header has no object '{}'", file, name);
    object_ = &*found;
  }

  Section(const json& object, const char* name, const std::string& file, std::nullptr_t) : object_(&object), name_(name), file_(file) {}

  bool has(const char* key) const { return object_->contains(key); }
  const json& at(const char* key) const {
    const auto found = object_->find(key);
    if (found == object_->end()) fail("{}: header has no '{}.{}'", file_, name_, key);
    return *found;
  }
  std::int64_t integer(const char* key, std::int64_t least, std::int64_t most) const { return integer(at(key), key, least, most); }
  std::int64_t integer(const json& value, const char* key, std::int64_t least, std::int64_t most) const {
    if (!value.is_number_integer() || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
      wrong(key, fmt::format("a whole number from {} to {}", least, most), value);
    }
    return value.get<std::int64_t>();
  }
  float number(const char* key, double least, double most) const {
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
      wrong(key, fmt::format("a number from {} to {}", least, most), value);
    }
    return static_cast<float>(value.get<double>());
  }
  bool flag(const char* key) const {
    if (!has(key)) return false;
    if (!at(key).is_boolean()) wrong(key, "true or false", at(key));
    return at(key).get<bool>();
  }
  template <class T, std::size_t N>
  T choice(const char* key, const std::array<std::pair<const char*, T>, N>& choices) const {
    const json& value = at(key);
    std::string names;
    for (const auto& [name, choice] : choices) {
      if (value.is_string() && value.get_ref<const std::string&>() == name) return choice;
      names += names.empty() ? name : fmt::format(" or {}", name);
    }
    wrong(key, names, value);
  }
  void expect(const char* key, const char* text) const {
    if (at(key) != text) wrong(key, fmt::format("'{}'", text), at(key));
  }
  [[noreturn]] void wrong(const char* key, const std::string& expected, const json& found) const {
    fail("{}: '{}.{}' is {}, expected {}", file_, name_, key, brief(found), expected);
  }

 private:
  const json* object_;
  const char* name_;
  const std::string& file_;
};

TransformerConfig read_config(const Section& section, const std::string& file) {
  TransformerConfig config;
  config.d_model = section.integer("d_model", 2, kMaxSize);
  config.encoder_layers = section.integer("encoder_layers", 1, kMaxLayers);
  config.decoder_layers = section.integer("decoder_layers", 1, kMaxLayers);
  config.encoder_heads = section.integer("encoder_heads", 1, config.d_model);
  config.decoder_heads = section.integer("decoder_heads", 1, config.d_model);
  config.encoder_ffn = section.integer("encoder_ffn", 1, kMaxSize);
  config.decoder_ffn = section.integer("decoder_ffn", 1, kMaxSize);
  config.source_vocabulary = section.integer("source_vocabulary", 1, kMaxSize);
  config.target_vocabulary = section.integer("target_vocabulary", 1, kMaxSize);
  config.activation = section.choice("activation", kActivations);
  section.expect("norm", "post");
  section.expect("positions", "sinusoidal");
  config.norm_epsilon = section.number("norm_epsilon", 0, 1);
  config.embedding_scale = section.number("embedding_scale", -1e6, 1e6);
  config.max_source_length = section.integer("max_source_length", 2, kMaxSize);
  if (section.has("encoder_positions")) config.encoder_positions = section.integer("encoder_positions", 1, kMaxSize);
  if (section.has("decoder_positions")) config.decoder_positions = section.integer("decoder_positions", 1, kMaxSize);
  for (const char* key : {"encoder_heads", "decoder_heads"}) {
    if (config.d_model % section.integer(key, 1, config.d_model) != 0) {
      fail("{}: 'config.d_model' is {}, expected a multiple of 'config.{}', {}", file, config.d_model, key, section.integer(key, 1, config.d_model));
    }
  }
  if (config.d_model % 2 != 0) fail("{}: 'config.d_model' is {}, expected an even number", file, config.d_model);
  return config;
}

std::vector<AddedToken> read_added(const Section& tokens, std::int64_t last, const std::string& file) {
  std::vector<AddedToken> added;
  if (!tokens.has("added")) return added;
  const json& list = tokens.at("added");
  if (!list.is_array()) tokens.wrong("added", "an array of objects", list);
  for (const json& entry : list) {
    if (!entry.is_object()) tokens.wrong("added", "an array of objects", entry);
    const Section token(entry, "tokens.added", file, nullptr);
    added.push_back({.id = static_cast<std::int32_t>(token.integer("id", 0, last)),
                     .strips_left = token.flag("lstrip"),
                     .strips_right = token.flag("rstrip"),
                     .single_word = token.flag("single_word"),
                     .special = token.flag("special")});
  }
  return added;
}

SpecialTokens read_tokens(const Section& section, const TransformerConfig& config, const std::string& file) {
  const std::int64_t source = config.source_vocabulary - 1, target = config.target_vocabulary - 1;
  return {.start = static_cast<std::int32_t>(section.integer("start", 0, target)),
          .end = static_cast<std::int32_t>(section.integer("end", 0, source)),
          .unknown = static_cast<std::int32_t>(section.integer("unknown", 0, source)),
          .pad = section.has("pad") ? static_cast<std::int32_t>(section.integer("pad", 0, target)) : -1,
          .added = read_added(section, source, file),
          .clean_up_spaces = section.flag("clean_up_spaces")};
}

// Where "ends" is absent, a hypothesis ends as a source does.
std::int32_t read_end(const Section& section, std::int32_t end_of_source, std::int64_t last) {
  if (!section.has("ends")) {
    if (end_of_source > last) section.wrong("ends", "an array, as the source's end is no target id", nullptr);
    return end_of_source;
  }
  const json& ends = section.at("ends");
  if (!ends.is_array() || ends.size() > 1) section.wrong("ends", "an array of at most one id", ends);
  return ends.empty() ? -1 : static_cast<std::int32_t>(section.integer(ends.front(), "ends", 0, last));
}

GenerationDefaults read_generation(const Section& section, const TransformerConfig& config, std::int32_t end_of_source) {
  GenerationDefaults generation;
  const std::int64_t last = config.target_vocabulary - 1;
  if (section.has("beam_size")) generation.beam_size = static_cast<int>(section.integer("beam_size", 1, kMaxBeams));
  if (section.has("length_penalty")) generation.length_penalty = section.number("length_penalty", -100, 100);
  if (section.has("early_stopping")) generation.early_stopping = section.choice("early_stopping", kEarlyStopping);
  if (section.has("max_length")) generation.max_length = section.integer("max_length", 1, kMaxSize);
  if (section.has("forced_first")) generation.forced_first = static_cast<std::int32_t>(section.integer("forced_first", 0, last));
  if (section.has("forced_end")) generation.forced_end = static_cast<std::int32_t>(section.integer("forced_end", 0, last));
  generation.end = read_end(section, end_of_source, last);
  generation.renormalize = section.flag("renormalize");
  generation.do_sample = section.flag("do_sample");
  const json& never = section.at("never_chosen");
  if (!never.is_array()) section.wrong("never_chosen", "an array of ids", never);
  for (const json& id : never) generation.never_chosen.push_back(static_cast<std::int32_t>(section.integer(id, "never_chosen", 0, last)));
  return generation;
}

}  // namespace

std::string brief(const json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "…" : text;
}

ModelDescription describe(const json& header, const std::string& file) {
  if (!header.is_object()) fail("{}: header is not a JSON object", file);
  const auto architecture = header.find("architecture");
  if (architecture == header.end() || *architecture != "transformer") {
    fail("{}: 'architecture' is {}, expected \"transformer\"", file, architecture == header.end() ? "missing" : brief(*architecture));
  }
  ModelDescription description;
  description.architecture = "transformer";
  description.config = read_config(Section(header, "config", file), file);
  description.tokens = read_tokens(Section(header, "tokens", file), description.config, file);
  description.generation = read_generation(Section(header, "generation", file), description.config, description.tokens.end);
  return description;
}

}  // namespace xlate
