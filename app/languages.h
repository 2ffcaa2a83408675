// Resolves the languages of multilingual models: from options for a whole run, or from columns of
// each line.
#pragma once

#include <string_view>

#include "app/options.h"
#include "models/description.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Checks --source-lang, --target-lang and --lang-column, and fills in the languages that the model
/// has by default. Throws UsageError if the model has no such language, or needs one that is
/// missing.
void resolve_languages(Options&, const ModelDescription&);

/// Returns the id of a language's token. `side` is "source" or "target". Throws Error if the model
/// has no such language.
std::int32_t language_id(const char* side, std::string_view code, const Tokenizer&);

/// Holds what a line of --lang-column consists of.
struct DirectedLine {
  std::int32_t source_language = -1, target_language = -1;  // token ids
  std::string_view text;
};

/// Splits a line at its first two tabs: SOURCE<TAB>TARGET<TAB>TEXT. A line of white space has no
/// languages and no text.
/// Throws Error if there are fewer tabs, or if the model has no such language.
DirectedLine read_directions(std::string_view line, const Tokenizer&);

}  // namespace xlate
