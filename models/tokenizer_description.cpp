// Reads the five steps of a tokenizer from the header. Steps are bounded in number and their texts
// in length, because a text may grow with every step that replaces something.
#include "models/tokenizer_description.h"

namespace xlate {
namespace {

using nlohmann::json;

constexpr std::size_t kMostSteps = 32, kLongestText = 64, kLongestPattern = 4096;

constexpr Choices<UnicodeForm, 4> kForms{{{"nfc", UnicodeForm::kNfc},
                                          {"nfd", UnicodeForm::kNfd},
                                          {"nfkc", UnicodeForm::kNfkc},
                                          {"nfkd", UnicodeForm::kNfkd}}};
constexpr Choices<Prepend, 3> kPrepends{
    {{"always", Prepend::kAlways}, {"first", Prepend::kFirst}, {"never", Prepend::kNever}}};
constexpr Choices<SplitStep::Behavior, 5> kBehaviors{
    {{"isolated", SplitStep::Behavior::kIsolated},
     {"removed", SplitStep::Behavior::kRemoved},
     {"merged_with_previous", SplitStep::Behavior::kMergedWithPrevious},
     {"merged_with_next", SplitStep::Behavior::kMergedWithNext},
     {"contiguous", SplitStep::Behavior::kContiguous}}};
constexpr Choices<NormalizeStep::Kind, 5> kNormalizeKinds{
    {{"charsmap", NormalizeStep::Kind::kCharsmap},
     {"replace", NormalizeStep::Kind::kReplace},
     {"prepend", NormalizeStep::Kind::kPrepend},
     {"strip", NormalizeStep::Kind::kStrip},
     {"unicode", NormalizeStep::Kind::kUnicode}}};
constexpr Choices<SplitStep::Kind, 5> kSplitKinds{{{"whitespace", SplitStep::Kind::kWhitespace},
                                                   {"metaspace", SplitStep::Kind::kMetaspace},
                                                   {"pattern", SplitStep::Kind::kPattern},
                                                   {"digits", SplitStep::Kind::kDigits},
                                                   {"byte_level", SplitStep::Kind::kByteLevel}}};
constexpr Choices<DecodeStep::Kind, 6> kDecodeKinds{
    {{"metaspace", DecodeStep::Kind::kMetaspace},
     {"byte_level", DecodeStep::Kind::kByteLevel},
     {"replace", DecodeStep::Kind::kReplace},
     {"byte_fallback", DecodeStep::Kind::kByteFallback},
     {"fuse", DecodeStep::Kind::kFuse},
     {"strip", DecodeStep::Kind::kStrip}}};

// Calls each(section) for the steps under a key.
template <class Each>
void each_step(const Section& tokenizer, const char* key, const Each& each) {
  const json& list = tokenizer.at(key);
  if (!list.is_array() || list.size() > kMostSteps)
    tokenizer.wrong(key, fmt::format("an array of at most {} objects", kMostSteps), list);
  for (const json& step : list) each(tokenizer.element(step, key));
}

// Returns the text under a key, which must not be empty.
std::string some_text(const Section& step, const char* key, std::size_t longest) {
  std::string text = step.text(key, longest);
  if (text.empty()) step.wrong(key, "a text that is not empty", step.at(key));
  return text;
}

NormalizeStep read_normalize(const Section& section) {
  NormalizeStep step;
  step.kind = section.choice("kind", kNormalizeKinds);
  switch (step.kind) {
    case NormalizeStep::Kind::kReplace:
      if (section.has("pattern")) {
        step.kind = NormalizeStep::Kind::kReplacePattern;
        step.text = some_text(section, "pattern", kLongestPattern);
      } else {
        step.text = some_text(section, "text", kLongestText);
      }
      step.with = section.text("with", kLongestText);
      break;
    case NormalizeStep::Kind::kPrepend:
      step.text = section.text("text", kLongestText);
      break;
    case NormalizeStep::Kind::kStrip:
      step.left = section.flag("left");
      step.right = section.flag("right");
      break;
    case NormalizeStep::Kind::kUnicode:
      step.form = section.choice("form", kForms);
      break;
    default:
      break;
  }
  return step;
}

SplitStep read_split(const Section& section) {
  SplitStep step;
  step.kind = section.choice("kind", kSplitKinds);
  switch (step.kind) {
    case SplitStep::Kind::kMetaspace:
      step.prepend = section.choice("prepend", kPrepends);
      step.splits = section.flag("split");
      break;
    case SplitStep::Kind::kPattern:
      step.pattern = some_text(section, "pattern", kLongestPattern);
      step.behavior = section.choice("behavior", kBehaviors);
      step.invert = section.flag("invert");
      break;
    case SplitStep::Kind::kDigits:
      step.individual = section.flag("individual");
      break;
    case SplitStep::Kind::kByteLevel:
      step.prefix_space = section.flag("prefix_space");
      if (section.has("pattern")) step.pattern = some_text(section, "pattern", kLongestPattern);
      break;
    case SplitStep::Kind::kWhitespace:
      break;
  }
  return step;
}

DecodeStep read_decode(const Section& section) {
  DecodeStep step;
  step.kind = section.choice("kind", kDecodeKinds);
  switch (step.kind) {
    case DecodeStep::Kind::kMetaspace:
      step.prepend = section.choice("prepend", kPrepends);
      break;
    case DecodeStep::Kind::kReplace:
      step.text = some_text(section, "text", kLongestText);
      step.with = section.text("with", kLongestText);
      break;
    case DecodeStep::Kind::kStrip:
      step.text = some_text(section, "text", kLongestText);
      step.left = section.integer("left", 0, Section::kMaxSize);
      step.right = section.integer("right", 0, Section::kMaxSize);
      break;
    default:
      break;
  }
  return step;
}

SegmentModel read_model(const Section& section, SegmentModel::Kind kind, std::int64_t last) {
  constexpr double kLargest = 1e9;
  return {.kind = kind,
          .unknown = section.has("unknown") ? section.id("unknown", last) : -1,
          .unknown_score = kind == SegmentModel::Kind::kUnigram
                               ? section.number("unknown_score", -kLargest, kLargest)
                               : 0,
          .byte_fallback = section.flag("byte_fallback"),
          .fuse_unknown = section.flag("fuse_unknown"),
          .whole_words = section.flag("whole_words")};
}

// Returns the ids of one side of the template.
std::vector<std::int32_t> read_items(const Section& around, const char* key, std::int64_t last) {
  const json& list = around.at(key);
  if (!list.is_array() || list.size() > kMostSteps)
    around.wrong(key, fmt::format("an array of at most {} ids", kMostSteps), list);
  std::vector<std::int32_t> items;
  for (const json& item : list) {
    items.push_back(item == "source_language"
                        ? Template::kSourceLanguage
                        : static_cast<std::int32_t>(around.integer(item, key, 0, last)));
  }
  return items;
}

PipelineDescription read_pipeline(const Section& section, const Section& model,
                                  SegmentModel::Kind kind, std::int64_t last_source) {
  PipelineDescription pipeline;
  each_step(section, "normalize",
            [&](const Section& step) { pipeline.normalize.push_back(read_normalize(step)); });
  each_step(section, "split", [&](const Section& step) {
    if (!pipeline.split.empty() && pipeline.split.back().kind == SplitStep::Kind::kByteLevel)
      section.wrong("split", "byte_level as the last step", section.at("split"));
    pipeline.split.push_back(read_split(step));
  });
  each_step(section, "decode",
            [&](const Section& step) { pipeline.decode.push_back(read_decode(step)); });
  pipeline.model = read_model(model, kind, last_source);
  return pipeline;
}

}  // namespace

TokenizerDescription read_tokenizer(const Section& section, std::int64_t last_source,
                                    const std::map<std::string, std::int32_t>& languages) {
  TokenizerDescription tokenizer;
  const Section model = section.inside("model");
  if (model.at("kind") != "sentencepiece") {
    constexpr Choices<SegmentModel::Kind, 2> kKinds{
        {{"unigram", SegmentModel::Kind::kUnigram}, {"bpe", SegmentModel::Kind::kBpe}}};
    tokenizer.pipeline = read_pipeline(section, model, model.choice("kind", kKinds), last_source);
  }
  const Section around = section.inside("template");
  tokenizer.around = {.before = read_items(around, "before", last_source),
                      .after = read_items(around, "after", last_source)};
  if (tokenizer.around.has_source_language()) {
    // The ids of languages are those of the target vocabulary.
    for (const auto& language : languages) {
      if (language.second > last_source)
        fail("{}: the language '{}' has the id {}, expected one up to {} in a template",
             section.file(), language.first, language.second, last_source);
    }
  }
  if (section.has("source_language")) {
    tokenizer.source_language = section.text("source_language", kLongestText);
    if (!languages.contains(tokenizer.source_language)) {
      section.wrong("source_language", "a key of 'tokens.languages'",
                    section.at("source_language"));
    }
  }
  return tokenizer;
}

}  // namespace xlate
