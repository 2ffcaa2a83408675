// Checks language codes, and lists those of the model where one is not among them.
#include "app/languages.h"

#include <algorithm>
#include <map>

#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Languages = std::map<std::string, std::int32_t>;

std::string known(const Languages& languages) {
  std::string codes;
  for (const auto& [code, id] : languages) codes += (codes.empty() ? "" : ", ") + code;
  return codes;
}

// Checks the code that an option was given.
void check_language(const char* option, const std::string& code, const ModelDescription& model) {
  const Languages& languages = model.tokens.languages;
  if (!languages.contains(code)) {
    throw UsageError(fmt::format("{}: '{}', expected one of {}", option, code, known(languages)));
  }
}

// A source of text needs a language if the model's tokenizer puts its token beside the text.
void resolve_source_language(Options& options, const ModelDescription& model) {
  if (options.source_lang) {
    check_language("--source-lang", *options.source_lang, model);
    return;
  }
  if (!model.tokenizer) return;
  if (!model.tokenizer->source_language.empty()) {
    options.source_lang = model.tokenizer->source_language;
  } else if (is_text(options.input_format) && model.tokenizer->around.has_source_language()) {
    if (options.input_format == Format::kJsonl) {
      options.lines_name_source = true;
      return;
    }
    throw UsageError(fmt::format(
        "--source-lang: the option is missing, expected a language code such as {}: {} reads {} "
        "languages",
        model.tokens.languages.begin()->first, options.model, model.tokens.languages.size()));
  }
}

void resolve_target_language(Options& options, const ModelDescription& model) {
  const Languages& languages = model.tokens.languages;
  if (options.target_lang) {
    check_language("--target-lang", *options.target_lang, model);
    return;
  }
  // A model for one direction may name its language by the start token instead (mBART).
  const auto is_language = [&](std::int32_t token) {
    return std::any_of(languages.begin(), languages.end(),
                       [&](const auto& language) { return language.second == token; });
  };
  const std::int32_t first = model.generation.forced_first;
  if (first < 0 && !is_language(model.tokens.start)) {
    if (options.input_format == Format::kJsonl) {
      options.lines_name_target = true;
      return;
    }
    throw UsageError(fmt::format(
        "--target-lang: the option is missing, expected a language code such as {}: {} writes {} "
        "languages",
        languages.begin()->first, options.model, languages.size()));
  }
  for (const auto& [code, id] : languages) {
    if (id == first) options.target_lang = code;
  }
}

// Throws UsageError if an option names a language, since the model has none.
void check_no_language(const Options& options) {
  const auto refuse = [&](const char* option, const std::string& value = "") {
    throw UsageError(fmt::format("{}: {}cannot be used: {} has no language tokens", option,
                                 value.empty() ? "" : fmt::format("'{}', ", value), options.model));
  };
  if (options.source_lang) refuse("--source-lang", *options.source_lang);
  if (options.target_lang) refuse("--target-lang", *options.target_lang);
  if (options.lang_column) refuse("--lang-column");
}

// Takes the text before the first tab off the line.
std::string_view take_column(std::string_view& line) {
  const std::size_t tab = line.find('\t');
  if (tab == std::string_view::npos) {
    const std::string shown = brief_text(line);
    fail("a tab is missing behind '{}{}', expected SOURCE<TAB>TARGET<TAB>TEXT (--lang-column)",
         shown, shown.size() < line.size() ? "…" : "");
  }
  const std::string_view column = line.substr(0, tab);
  line.remove_prefix(tab + 1);
  return column;
}

}  // namespace

void resolve_languages(Options& options, const ModelDescription& model) {
  if (model.tokens.languages.empty()) {
    check_no_language(options);
    return;
  }
  if (!options.lang_column) {
    resolve_source_language(options, model);
    resolve_target_language(options, model);
  } else if (options.source_lang || options.target_lang) {
    throw UsageError(fmt::format("{}: cannot be used beside --lang-column",
                                 options.source_lang ? "--source-lang" : "--target-lang"));
  }
}

std::int32_t language_id(const char* side, std::string_view code, const Tokenizer& tokenizer) {
  const std::int32_t id = tokenizer.language_id(std::string(code));
  if (id < 0 && tokenizer.languages().empty())
    fail("{} language '{}', expected none: the model has no language tokens", side,
         brief_text(code));
  if (id < 0)
    fail("'{}' is no {} language, expected one of {}", brief_text(code), side,
         known(tokenizer.languages()));
  return id;
}

DirectedLine read_directions(std::string_view line, const Tokenizer& tokenizer) {
  DirectedLine directed;
  if (without_leading_space(line).empty()) return directed;
  const std::string_view source = take_column(line), target = take_column(line);
  directed.source_language = language_id("source", source, tokenizer);
  directed.target_language = language_id("target", target, tokenizer);
  directed.text = line;
  return directed;
}

}  // namespace xlate
