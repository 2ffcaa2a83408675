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
void append_row(std::string& out, std::int64_t line, const std::string& text, float sum,
                float score, const Options& options) {
  const auto end = std::back_inserter(out);
  if (options.n_best > 0)
    fmt::format_to(end, "{} ||| {} ||| F0= {:.6g} ||| {:.6g}\n", line, text, sum, score);
  else if (options.scores)
    fmt::format_to(end, "{:.6g} ||| {}\n", score, text);
  else
    out.append(text).push_back('\n');
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

std::string format_line(const Decoded& decoded, const Options& options, const Tokenizer& tokenizer,
                        std::string fields) {
  std::string out;
  std::vector<JsonResult> results;
  for (Hypothesis& hypothesis : decoded.result.hypotheses(std::max(1, options.n_best))) {
    std::vector<std::int32_t>& ids = hypothesis.ids;
    const std::vector<std::int32_t>& prompt = decoded.sentence.ids;
    // The prompt and its continuation are decoded together, since a tokenizer may write the first
    // word of a text without the space before it.
    if (options.echo) ids.insert(ids.begin(), prompt.begin(), prompt.end());
    std::string text = text_of(ids, options.echo ? prompt.size() : 0, options, tokenizer);
    if (options.output_format == Format::kJsonl)
      results.push_back({std::move(text), hypothesis.score, hypothesis.length});
    else
      append_row(out, decoded.sentence.line, text, hypothesis.sum, hypothesis.score, options);
  }
  if (options.output_format != Format::kJsonl) return out;
  return json_line(std::move(fields), results, options.n_best > 0);
}

std::string format_empty(std::int64_t line, const Options& options, std::string fields) {
  if (options.output_format == Format::kJsonl && fields.empty()) return "\n";
  if (options.score_text) return format_score(0, 0, options, std::move(fields));
  if (options.output_format == Format::kJsonl) {
    return json_line(std::move(fields), std::vector<JsonResult>(1), options.n_best > 0);
  }
  std::string out;
  append_row(out, line, "", 0, 0, options);
  return out;
}

std::string format_skipped(std::int64_t line, const Options& options, std::string fields,
                           const std::string& why) {
  if (options.output_format == Format::kJsonl) return json_error_line(std::move(fields), why);
  return format_empty(line, options, std::move(fields));
}

}  // namespace xlate
