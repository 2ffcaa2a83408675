// Implements the translation of lines of HTML.
#include "app/markup_lines.h"

#include <algorithm>
#include <utility>

#include "app/scoring.h"
#include "tokenization/markup.h"
#include "tokenization/markup_writer.h"
#include "tokenization/text_edits.h"

namespace xlate {
namespace {

void refuse(bool given, const char* why) {
  if (given) throw UsageError(std::string("--markup html: ") + why);
}

// Returns the end of the text that the model has read, which may have been cut.
std::size_t read_bytes(const MarkedLine& line) {
  std::size_t end = 0;
  for (const std::vector<TextRange>& tokens : line.tokens) {
    for (const TextRange& token : tokens) end = std::max(end, token.end);
  }
  return end;
}

// Tags may have line breaks in them where the line is an object. Those of the text are none by now.
void keep_tags_on_one_line(std::string& text, const Options& options) {
  if (options.output_format != Format::kJsonl) keep_on_one_line(text);
}

}  // namespace

void check_markup(const Options& options, const ModelDescription& model) {
  if (options.markup == MarkupKind::kNone) return;
  if (!model.network.has_encoder()) {
    throw UsageError(
        fmt::format("--markup html: cannot be used: {} has no encoder, and so no cross-attention "
                    "by which tags could be placed",
                    options.model));
  }
  refuse(scores_lines(options), "cannot be used where lines are scored and no text is written");
  refuse(!is_text(options.input_format) || !is_text(options.output_format),
         "expected text or jsonl as the format of the input and of the output");
}

bool has_markup(std::string_view line) {
  return line.find_first_of("<&>") != std::string_view::npos ||
         line.find("\u00A0") != std::string_view::npos;
}

std::vector<TextRange> marked_tokens(const Tokenizer& tokenizer, std::string_view text,
                                     std::size_t head, std::size_t begin) {
  std::vector<TextRange> tokens = tokenizer.source_ranges(text);
  for (TextRange& token : tokens) {
    const bool inside = token.begin >= head && token.end > token.begin;
    token = inside ? TextRange{token.begin - head + begin, token.end - head + begin} : TextRange{};
  }
  return tokens;
}

std::vector<TextLink> links_of(std::span<const std::int32_t> aligned,
                               const std::vector<TextRange>& sources,
                               const std::vector<TextRange>& targets) {
  std::vector<TextLink> links;
  for (std::size_t i = 0; i < std::min(aligned.size(), targets.size()); ++i) {
    const auto source = static_cast<std::size_t>(aligned[i]);
    if (source < sources.size()) links.push_back({sources[source], targets[i]});
  }
  return links;
}

void add_markup(std::vector<LineResult>& results, const MarkedLine* line, const Options& options) {
  const Markup markup = line ? read_markup(line->line) : Markup();
  const std::size_t read = line ? read_bytes(*line) : 0;
  for (LineResult& result : results) {
    result.text = with_markup(markup, line ? std::string_view(line->line) : std::string_view(),
                              result.text, result.links, read);
    if (line) keep_tags_on_one_line(result.text, options);
  }
}

std::string markup_alone(std::string line, const Options& options) {
  keep_tags_on_one_line(line, options);
  return line;
}

}  // namespace xlate
