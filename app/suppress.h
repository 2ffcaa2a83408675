// Finds the tokens that --suppress and --suppress-unk name.
#pragma once

#include "app/options.h"
#include "models/description.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns whether the options name tokens, so that the tokenizer must read targets.
bool suppresses(const Options&);

/// Fills in Options::suppressed. Throws UsageError if a text is not one token, or if the model has
/// no unknown token and the options name it. The tokenizer must read targets if suppresses() says
/// so.
void resolve_suppressed(Options&, const ModelDescription&, const Tokenizer&);

}  // namespace xlate
