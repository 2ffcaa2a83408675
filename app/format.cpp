// Writes the hypotheses of a line as rows of text, pieces or ids.
#include "app/format.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <vector>

#include "app/json_lines.h"
#include "app/markup_lines.h"
#include "app/scoring.h"

namespace xlate {
namespace {

// Appends the fields of annotations, with an empty list for an empty line.
void append_annotated(std::string& out, const LineResult& result, const Options& options) {
  const auto end = std::back_inserter(out);
  if (options.alignments) {
    out += " ||| ";
    const char* separator = "";
    for (const auto& [source, target] : result.alignments) {
      fmt::format_to(end, "{}{}-{}", separator, source, target);
      separator = " ";
    }
  }
  if (options.token_scores) {
    fmt::format_to(end, " ||| {:.6g}", fmt::join(result.token_scores, " "));
  }
}

// Appends one row: in the n-best format of Moses and Marian, or as text with or without its score.
void append_row(std::string& out, std::int64_t line, const LineResult& result,
                const Options& options) {
  const auto end = std::back_inserter(out);
  if (options.has_rows())
    fmt::format_to(end, "{} ||| {} ||| F0= {:.6g} ||| {:.6g}", line, result.text, result.sum,
                   result.score);
  else if (options.scores)
    fmt::format_to(end, "{:.6g} ||| {}", result.score, result.text);
  else
    out += result.text;
  append_annotated(out, result, options);
  out.push_back('\n');
}

LineRules rules_of(const Options& options, std::size_t prompt_ids) {
  const bool jsonl = options.output_format == Format::kJsonl;
  return {.newline = jsonl             ? "\n"
                     : options.newline ? std::string_view(*options.newline)
                                       : " ",
          .stops = options.stop,
          .prompt_ids = prompt_ids};
}

// The first `prompt_ids` ids are those of the prompt.
std::string text_of(std::span<const std::int32_t> ids, std::size_t prompt_ids,
                    const Options& options, const Tokenizer& tokenizer) {
  const LineRules rules = rules_of(options, prompt_ids);
  switch (options.output_format) {
    case Format::kText:
    case Format::kJsonl:
      return tokenizer.decode(ids, rules);
    case Format::kPieces:
      return tokenizer.decode_pieces(ids, rules);
    case Format::kIds:
      return Tokenizer::write_ids(ids);
  }
  return {};
}

// Returns the pairs of words of the pairs of tokens, in the order of the target's words. Tokens
// that are no text have no word.
std::vector<TokenPair> word_pairs(const std::vector<TokenPair>& tokens, const TokenWords& source,
                                  const TokenWords& target) {
  std::vector<TokenPair> words;
  for (const auto& [from, to] : tokens) {
    const TokenPair pair{source[static_cast<std::size_t>(from)],
                         target[static_cast<std::size_t>(to)]};
    if (pair.source >= 0 && pair.target >= 0) words.push_back(pair);
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

// Adds what is printed of the annotation of a hypothesis with these ids.
void annotate(LineResult& result, const Annotation& annotation, std::span<const std::int32_t> ids,
              const TokenWords& words, const Options& options, const Tokenizer& tokenizer) {
  result.token_scores = annotation.token_scores;
  if (!options.alignments) return;
  for (std::size_t i = 0; i < annotation.aligned.size(); ++i)
    result.alignments.push_back({annotation.aligned[i], static_cast<std::int32_t>(i)});
  if (options.alignment_words) {
    result.alignments =
        word_pairs(result.alignments, words, tokenizer.target_words(ids, rules_of(options, 0)));
  }
}

}  // namespace

std::vector<LineResult> results_of(const AnnotatedLine& line, const Options& options,
                                   const Tokenizer& tokenizer, const TokenWords& words,
                                   const MarkedLine* marked) {
  const Decoded& decoded = line.decoded;
  std::vector<LineResult> results;
  auto annotation = line.annotations.begin();
  // All draws have the same source.
  const auto part = static_cast<std::size_t>(std::max(0, decoded.sentence.part));
  const std::vector<TextRange>* sources =
      marked && !marked->tokens.empty() ? &marked->tokens[std::min(part, marked->tokens.size() - 1)]
                                        : nullptr;
  const int most = decoded.sentence.part < 0 ? std::max(1, options.n_best) : 1;
  for (Hypothesis& hypothesis : decoded.result.hypotheses(most)) {
    std::vector<std::int32_t>& ids = hypothesis.ids;
    LineResult result{
        .text = {}, .sum = hypothesis.sum, .score = hypothesis.score, .tokens = hypothesis.length};
    if (annotation != line.annotations.end()) {
      if (sources) {
        result.links = links_of(annotation->aligned, *sources,
                                tokenizer.target_ranges(ids, rules_of(options, 0)));
      }
      annotate(result, *annotation++, ids, words, options, tokenizer);
    }
    const std::vector<std::int32_t>& prompt = decoded.sentence.ids;
    // The prompt and its continuation are decoded together, since a tokenizer may write the first
    // word of a text without the space before it.
    if (options.echo) ids.insert(ids.begin(), prompt.begin(), prompt.end());
    result.text = text_of(ids, options.echo ? prompt.size() : 0, options, tokenizer);
    results.push_back(std::move(result));
  }
  return results;
}

std::string format_line(std::int64_t line, const std::vector<LineResult>& results,
                        const Options& options, std::string fields) {
  if (options.output_format == Format::kJsonl)
    return json_line(std::move(fields), results, json_shape_of(options));
  std::string out;
  for (const LineResult& result : results) append_row(out, line, result, options);
  return out;
}

std::string format_empty(std::int64_t line, const Options& options, std::string fields,
                         std::string text) {
  if (options.output_format == Format::kJsonl && fields.empty()) return "\n";
  if (scores_lines(options)) return format_score(0, 0, options, std::move(fields));
  return format_line(line, {LineResult{.text = std::move(text)}}, options, std::move(fields));
}

std::string format_skipped(std::int64_t line, const Options& options, std::string fields,
                           const std::string& why) {
  if (options.output_format == Format::kJsonl) return json_error_line(std::move(fields), why);
  return format_empty(line, options, std::move(fields));
}

std::string format_score(double score, std::int64_t tokens, const Options& options,
                         std::string fields) {
  if (options.output_format == Format::kJsonl)
    return json_score_line(std::move(fields), score, tokens);
  return options.score_pairs ? fmt::format("{:.6g}\n", score)
                             : fmt::format("{:.6g} ||| {}\n", score, tokens);
}

}  // namespace xlate
