// Writes the hypotheses of a line as rows of text, pieces or ids.
#include "app/format.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <vector>

#include "app/json_lines.h"
#include "app/score_text.h"

namespace xlate {
namespace {

// Appends one row: in the n-best format of Moses and Marian, or as text with or without its score.
void append_row(std::string& out, std::int64_t line, const LineResult& result,
                const Options& options) {
  const auto end = std::back_inserter(out);
  if (options.has_rows())
    fmt::format_to(end, "{} ||| {} ||| F0= {:.6g} ||| {:.6g}\n", line, result.text, result.sum,
                   result.score);
  else if (options.scores)
    fmt::format_to(end, "{:.6g} ||| {}\n", result.score, result.text);
  else
    out.append(result.text).push_back('\n');
}

// The first `prompt_ids` ids are those of the prompt.
std::string text_of(std::span<const std::int32_t> ids, std::size_t prompt_ids,
                    const Options& options, const Tokenizer& tokenizer) {
  const bool jsonl = options.output_format == Format::kJsonl;
  const LineRules rules{.newline = jsonl             ? "\n"
                                   : options.newline ? std::string_view(*options.newline)
                                                     : " ",
                        .stops = options.stop,
                        .prompt_ids = prompt_ids};
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

}  // namespace

std::vector<LineResult> results_of(const Decoded& decoded, const Options& options,
                                   const Tokenizer& tokenizer) {
  std::vector<LineResult> results;
  const int most = decoded.sentence.part < 0 ? std::max(1, options.n_best) : 1;
  for (Hypothesis& hypothesis : decoded.result.hypotheses(most)) {
    std::vector<std::int32_t>& ids = hypothesis.ids;
    const std::vector<std::int32_t>& prompt = decoded.sentence.ids;
    // The prompt and its continuation are decoded together, since a tokenizer may write the first
    // word of a text without the space before it.
    if (options.echo) ids.insert(ids.begin(), prompt.begin(), prompt.end());
    results.push_back({.text = text_of(ids, options.echo ? prompt.size() : 0, options, tokenizer),
                       .sum = hypothesis.sum,
                       .score = hypothesis.score,
                       .tokens = hypothesis.length});
  }
  return results;
}

std::string format_line(std::int64_t line, const std::vector<LineResult>& results,
                        const Options& options, std::string fields) {
  if (options.output_format == Format::kJsonl)
    return json_line(std::move(fields), results, options.has_rows());
  std::string out;
  for (const LineResult& result : results) append_row(out, line, result, options);
  return out;
}

std::string format_empty(std::int64_t line, const Options& options, std::string fields) {
  if (options.output_format == Format::kJsonl && fields.empty()) return "\n";
  if (options.score_text) return format_score(0, 0, options, std::move(fields));
  return format_line(line, {LineResult()}, options, std::move(fields));
}

std::string format_skipped(std::int64_t line, const Options& options, std::string fields,
                           const std::string& why) {
  if (options.output_format == Format::kJsonl) return json_error_line(std::move(fields), why);
  return format_empty(line, options, std::move(fields));
}

}  // namespace xlate
