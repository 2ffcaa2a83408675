// Translates the text of lines of HTML (--markup html).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/line_markup.h"
#include "app/line_result.h"
#include "app/options.h"
#include "models/description.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Throws UsageError if --markup was given and the model or another option does not allow it.
void check_markup(const Options&, const ModelDescription&);

/// Returns whether a line must be kept until it is written: it has tags or references, or
/// characters that others write as references.
bool has_markup(std::string_view line);

/// Returns the bytes that source tokens stand for, as MarkedLine keeps them: `text` is what
/// was tokenized, of which the first `head` bytes are no text of the line, and the rest begins at
/// byte `begin` of it.
std::vector<TextRange> marked_tokens(const Tokenizer&, std::string_view text, std::size_t head,
                                     std::size_t begin);

/// Returns the links of a hypothesis of a part: `aligned` has the source token of each target
/// token, and `sources` and `targets` the bytes that tokens stand for.
std::vector<TextLink> links_of(std::span<const std::int32_t> aligned,
                               const std::vector<TextRange>& sources,
                               const std::vector<TextRange>& targets);

/// Puts the tags of a line into the texts of its results, and writes these as HTML. `line` is null
/// for a line that was not kept.
void add_markup(std::vector<LineResult>&, const MarkedLine* line, const Options&);
/// Returns the output of a line without any text to translate.
std::string markup_alone(std::string line, const Options&);

}  // namespace xlate
