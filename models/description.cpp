// Reads "tokens" and "generation" of a model file's header, and what version 1 has in their place.
#include "models/description.h"

#include <algorithm>

#include "models/chat_description.h"
#include "models/section.h"

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxSize = Section::kMaxSize;

// No multilingual model has nearly as many languages.
constexpr std::size_t kMaxLanguages = 4096;

constexpr Choices<EarlyStopping, 3> kEarlyStopping{{{"true", EarlyStopping::kTrue},
                                                    {"false", EarlyStopping::kFalse},
                                                    {"never", EarlyStopping::kNever}}};

std::vector<AddedToken> read_added(const Section& tokens, std::int64_t last) {
  std::vector<AddedToken> added;
  if (!tokens.has("added")) return added;
  const json& list = tokens.at("added");
  if (!list.is_array()) tokens.wrong("added", "an array of objects", list);
  for (const json& entry : list) {
    const Section token = tokens.element(entry, "added");
    added.push_back({.id = token.id("id", last),
                     .strips_left = token.flag("lstrip"),
                     .strips_right = token.flag("rstrip"),
                     .single_word = token.flag("single_word"),
                     .normalized = token.flag("normalized"),
                     .special = token.flag("special"),
                     .marks_turn = token.flag("marks_turn")});
  }
  return added;
}

// Returns whether a message can show the code on one line. The parser of the header has checked
// that it is UTF-8.
bool printable(const std::string& code) {
  return std::none_of(code.begin(), code.end(), [](char byte) {
    return static_cast<unsigned char>(byte) < 0x20 || byte == 0x7F;
  });
}

std::map<std::string, std::int32_t> read_languages(const Section& tokens, std::int64_t last) {
  std::map<std::string, std::int32_t> languages;
  if (!tokens.has("languages")) return languages;
  const Section section = tokens.inside("languages");
  const json& ids = tokens.at("languages");
  if (ids.size() > kMaxLanguages) {
    tokens.wrong("languages", fmt::format("an object of at most {} ids", kMaxLanguages),
                 fmt::format("an object of {}", ids.size()));
  }
  for (const auto& [code, id] : ids.items()) {
    if (code.empty() || !printable(code))
      tokens.wrong("languages", "an object whose keys are language codes", code);
    languages.emplace(code, section.id(code.c_str(), last));
  }
  return languages;
}

// Reads the ids. Where there is no encoder, a prompt has no end token, and nothing has a start
// token.
SpecialTokens read_tokens(const Section& section, bool has_encoder, std::int64_t last_source,
                          std::int64_t last_target) {
  return {.start = has_encoder ? section.id("start", last_target) : -1,
          .end = has_encoder ? section.id("end", last_source) : -1,
          .unknown = section.id("unknown", last_source),
          .pad = section.has("pad") ? section.id("pad", last_target) : -1,
          .added = read_added(section, last_source),
          .clean_up_spaces = section.flag("clean_up_spaces"),
          .languages = read_languages(section, last_target)};
}

// Reads the ids that end a hypothesis. Where "ends" is absent, it is the end token of the source,
// if a source has one.
std::vector<std::int32_t> read_ends(const Section& section, std::int32_t end_of_source,
                                    std::int64_t last) {
  if (!section.has("ends")) {
    if (end_of_source < 0) return {};
    if (end_of_source > last)
      section.wrong("ends", "an array, as the source's end is no target id", nullptr);
    return {end_of_source};
  }
  const json& list = section.at("ends");
  if (!list.is_array()) section.wrong("ends", "an array of ids", list);
  if (list.size() > kMaxEnds) {
    fail("{}: '{}.ends' has {} ids, expected at most {}", section.file(), section.path(),
         list.size(), kMaxEnds);
  }
  std::vector<std::int32_t> ends;
  for (const json& end : list) {
    ends.push_back(static_cast<std::int32_t>(section.integer(end, "ends", 0, last)));
    if (std::count(ends.begin(), ends.end(), ends.back()) > 1)
      section.wrong("ends", "ids that all differ", end);
  }
  return ends;
}

GenerationDefaults read_generation(const Section& section, std::int32_t end_of_source,
                                   std::int64_t last) {
  GenerationDefaults generation;
  if (section.has("beam_size"))
    generation.beam_size = static_cast<int>(section.integer("beam_size", 1, kMaxBeams));
  if (section.has("length_penalty"))
    generation.length_penalty = static_cast<float>(section.number("length_penalty", -100, 100));
  if (section.has("early_stopping"))
    generation.early_stopping = section.choice("early_stopping", kEarlyStopping);
  if (section.has("max_length")) generation.max_length = section.integer("max_length", 1, kMaxSize);
  if (section.has("max_total_length"))
    generation.max_total_length = section.integer("max_total_length", 1, kMaxSize);
  if (section.has("forced_first")) generation.forced_first = section.id("forced_first", last);
  if (section.has("forced_end")) generation.forced_end = section.id("forced_end", last);
  if (section.has("min_length")) generation.min_length = section.integer("min_length", 0, kMaxSize);
  if (section.has("no_repeat_ngram"))
    generation.no_repeat_ngram = section.integer("no_repeat_ngram", 0, kMaxSize);
  if (section.has("repetition_penalty")) {
    generation.repetition_penalty =
        static_cast<float>(section.number("repetition_penalty", 0.01, 100));
  }
  generation.ends = read_ends(section, end_of_source, last);
  generation.renormalize = section.flag("renormalize");
  if (section.has("temperature"))
    generation.temperature = static_cast<float>(section.number("temperature", 0.01, 100));
  if (section.has("top_p")) generation.top_p = static_cast<float>(section.number("top_p", 1e-6, 1));
  if (section.has("top_k"))
    generation.top_k = static_cast<std::int32_t>(section.integer("top_k", 0, 0x7fffffff));
  generation.do_sample = section.flag("do_sample");
  const json& never = section.at("never_chosen");
  if (!never.is_array()) section.wrong("never_chosen", "an array of ids", never);
  for (const json& id : never)
    generation.never_chosen.push_back(
        static_cast<std::int32_t>(section.integer(id, "never_chosen", 0, last)));
  return generation;
}

}  // namespace

ModelDescription describe(const json& header, std::uint32_t version, const std::string& file) {
  if (!header.is_object()) fail("{}: header is not a JSON object", file);
  ModelDescription model;
  if (const auto found = header.find("architecture");
      version == 1 && (found == header.end() || *found != model.architecture)) {
    fail("{}: 'architecture' is {}, expected \"{}\"", file,
         found == header.end() ? "missing" : brief(*found), model.architecture);
  }
  model.network = describe_network(header, version, file);
  const std::int64_t last_source = model.network.reader().embedding.vocabulary - 1,
                     last_target = model.network.decoder.embedding.vocabulary - 1;
  const Section generation(header, "generation", file);
  model.tokens = read_tokens(Section(header, "tokens", file), model.network.has_encoder(),
                             last_source, last_target);
  if (header.contains("tokenizer")) {
    model.tokenizer =
        read_tokenizer(Section(header, "tokenizer", file), last_source, model.tokens.languages);
  }
  if (header.contains("chat")) {
    if (model.network.has_encoder() || !model.tokenizer || !model.tokenizer->pipeline)
      fail("{}: header has 'chat', expected it of a decoder alone with a pipeline", file);
    model.chat = read_chat(Section(header, "chat", file));
  }
  model.generation = read_generation(generation, model.tokens.end, last_target);
  const Section limits = version == 1 ? Section(header, "config", file) : generation;
  model.generation.max_source_length = limits.integer("max_source_length", 2, kMaxSize);
  // A file of version 1 may say that a stack has a stored table of positions: the key gives its
  // number of rows.
  for (const auto& [key, stack] : {std::pair{"encoder_positions", &model.network.encoder},
                                   {"decoder_positions", &model.network.decoder}}) {
    if (version == 1 && limits.has(key)) {
      stack->embedding.positions = Positions::kLearned;
      stack->embedding.rows = limits.integer(key, 1, kMaxSize);
    }
  }
  return model;
}

}  // namespace xlate
