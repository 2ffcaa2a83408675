// Formats a decoded line as the output that is written for it.
#pragma once

#include <string>

#include "app/options.h"
#include "engine/runner.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns the output line, or with --n-best the rows of the line. Each ends in a newline.
std::string format_line(const Decoded&, const Options&, const Tokenizer&);

/// Returns the output of a line that is not translated, because it is empty or skipped: empty text,
/// with the score 0.
std::string format_empty(std::int64_t line, const Options&);

}  // namespace xlate
