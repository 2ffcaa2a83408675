// Checks the options of prompts and of the text behind them.
#pragma once

#include "app/options.h"

namespace xlate {

/// Throws UsageError if an option of prompts or of text was given that means nothing for the model
/// or for the formats.
void check_prompt_options(const Options&, const ModelDescription&);

}  // namespace xlate
