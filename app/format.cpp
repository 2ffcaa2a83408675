// Writes the hypotheses of a line as rows of text, pieces or ids.
#include "app/format.h"

#include <algorithm>
#include <iterator>
#include <span>

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

std::string text_of(const Hypothesis& hypothesis, Format format, const Tokenizer& tokenizer) {
  switch (format) {
    case Format::kText:
      return tokenizer.decode(hypothesis.ids);
    case Format::kPieces:
      return tokenizer.decode_pieces(hypothesis.ids);
    case Format::kIds:
      return Tokenizer::write_ids(hypothesis.ids);
  }
  return {};
}

}  // namespace

std::string format_line(const Decoded& decoded, const Options& options,
                        const Tokenizer& tokenizer) {
  std::string out;
  for (const Hypothesis& hypothesis : decoded.result.hypotheses(std::max(1, options.n_best))) {
    append_row(out, decoded.sentence.line, text_of(hypothesis, options.output_format, tokenizer),
               hypothesis.sum, hypothesis.score, options);
  }
  return out;
}

std::string format_empty(std::int64_t line, const Options& options) {
  std::string out;
  append_row(out, line, "", 0, 0, options);
  return out;
}

}  // namespace xlate
