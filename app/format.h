// Formats a decoded line as the output that is written for it.
#pragma once

#include <string>

#include "app/options.h"
#include "engine/runner.h"
#include "tokenization/tokenizer.h"

namespace xlate {

// Each function takes the beginning of the line's object (TokenizedLine::fields), which only
// --output-format jsonl uses.

/// Returns the output line, or with --n-best the rows of the line. Each ends in a newline.
std::string format_line(const Decoded&, const Options&, const Tokenizer&, std::string fields);

/// Returns the output of a line that is not translated because it is empty: empty text, with the
/// score 0.
std::string format_empty(std::int64_t line, const Options&, std::string fields);

/// Returns the output of a line that is skipped: an object that says why, or that of an empty line.
std::string format_skipped(std::int64_t line, const Options&, std::string fields,
                           const std::string& why);

}  // namespace xlate
