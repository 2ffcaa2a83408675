// Implements the checks of the options of prompts and text.
#include "app/prompts.h"

namespace xlate {

void check_prompt_options(const Options& options, const ModelDescription& model) {
  if (options.echo && model.network.has_encoder()) {
    throw UsageError(fmt::format(
        "--echo: expected no such option: {} has an encoder, and its output continues no prompt",
        options.model));
  }
  if (options.newline && options.output_format == Format::kIds)
    throw UsageError("--newline: expected no such option with --output-format ids");
}

}  // namespace xlate
