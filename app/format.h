// Makes text of what was decoded, and formats it as the output of a line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/annotations.h"
#include "app/line_markup.h"
#include "app/line_result.h"
#include "app/line_words.h"
#include "app/options.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns the hypotheses that are written of a line, best first, or the best one of a part. With
/// --alignment-words, `words` are those of the line's source. `marked` is the line of HTML, or
/// null; its tags are not put back yet.
std::vector<LineResult> results_of(const AnnotatedLine&, const Options&, const Tokenizer&,
                                   const TokenWords& words, const MarkedLine* marked);

// Each function below takes the beginning of the line's object (TokenizedLine::fields), which only
// --output-format jsonl uses.

/// Returns the output line, or with --n-best a row for each result. Each ends in a newline.
std::string format_line(std::int64_t line, const std::vector<LineResult>&, const Options&,
                        std::string fields);

/// Returns the output of a line that is not translated because it is empty: empty text, or tags
/// alone, with the score 0.
std::string format_empty(std::int64_t line, const Options&, std::string fields,
                         std::string text = {});

/// Returns the output of a line that is skipped: an object that says why, or that of an empty line.
std::string format_skipped(std::int64_t line, const Options&, std::string fields,
                           const std::string& why);

/// Returns the output of a line: the sum of the log-probabilities of its tokens and their number,
/// or the normalized score of a pair. With --output-format jsonl, `fields` is the beginning of its
/// object.
std::string format_score(double score, std::int64_t tokens, const Options&, std::string fields);

}  // namespace xlate
