// Writes the hypotheses of a line as rows of text, pieces or ids.
#include "app/format.h"

#include <algorithm>
#include <iterator>
#include <span>

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
  const LineRules rules{.newline = options.newline ? std::string_view(*options.newline) : " ",
                        .stops = options.stop,
                        .prompt_ids = prompt_ids};
  switch (options.output_format) {
    case Format::kText:
      return tokenizer.decode(ids, rules);
    case Format::kPieces:
      return tokenizer.decode_pieces(ids, rules);
    case Format::kIds:
      return Tokenizer::write_ids(ids);
  }
  return {};
}

}  // namespace

std::string format_line(const Decoded& decoded, const Options& options,
                        const Tokenizer& tokenizer) {
  std::string out;
  for (Hypothesis& hypothesis : decoded.result.hypotheses(std::max(1, options.n_best))) {
    std::vector<std::int32_t>& ids = hypothesis.ids;
    const std::vector<std::int32_t>& prompt = decoded.sentence.ids;
    // The prompt and its continuation are decoded together, since a tokenizer may write the first
    // word of a text without the space before it.
    if (options.echo) ids.insert(ids.begin(), prompt.begin(), prompt.end());
    append_row(out, decoded.sentence.line,
               text_of(ids, options.echo ? prompt.size() : 0, options, tokenizer), hypothesis.sum,
               hypothesis.score, options);
  }
  return out;
}

std::string format_empty(std::int64_t line, const Options& options) {
  if (options.score_text) return format_score(0, 0);
  std::string out;
  append_row(out, line, "", 0, 0, options);
  return out;
}

}  // namespace xlate
