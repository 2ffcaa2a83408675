// Checks the options of prompts and of the text behind them.
#pragma once

#include "app/options.h"
#include "models/description.h"

namespace xlate {

/// Reads the file of a template. Throws UsageError if a template is wrong, or if an option of
/// prompts or of text was given that means nothing for the model or for the formats. Throws Error
/// if the file cannot be read.
void resolve_prompts(Options&, const ModelDescription&);

}  // namespace xlate
