// A decoded line as the text that is printed for it.
#pragma once

#include <string>

#include "app/options.h"
#include "engine/runner.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Its output line, or with --n-best its rows; each ends in a newline.
std::string format_line(const Decoded&, const Options&, const Tokenizer&);

/// The output of a line that the model was not asked about: empty text, score 0.
std::string format_empty(std::int64_t line, const Options&);

}  // namespace xlate
