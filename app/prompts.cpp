// Implements the checks of the options of prompts and text.
#include "app/prompts.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "app/prompt_template.h"

namespace xlate {
namespace {

constexpr std::size_t kLongestTemplate = std::size_t{1} << 20;

// Throws UsageError if the option was given, since the model has an encoder.
void refuse_with_encoder(const char* option, bool given, const Options& options) {
  if (given) {
    throw UsageError(
        fmt::format("{}: cannot be used: {} has an encoder, and its output continues no "
                    "prompt",
                    option, options.model));
  }
}

// Returns the text of a file without a byte order mark and without one newline at its end.
std::string read_template_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kLongestTemplate + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file && !file.eof())
    fail("--template-file {}: cannot be read: {}", path, std::strerror(errno));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kLongestTemplate) {
    throw UsageError(
        fmt::format("--template-file {}: expected at most {} bytes", path, kLongestTemplate));
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

void resolve_template(Options& options) {
  if (!options.template_file.empty()) {
    if (options.template_text)
      throw UsageError("--template: cannot be used beside --template-file");
    options.template_text = read_template_file(options.template_file);
  }
  if (!options.template_text) return;
  const std::string option =
      options.template_file.empty() ? "--template" : "--template-file " + options.template_file;
  read_template(*options.template_text, option);
  if (!is_text(options.input_format)) {
    throw UsageError(fmt::format("{}: cannot be used with --input-format {}", option,
                                 name_of(options.input_format)));
  }
}

// Throws UsageError if the chat template of the model cannot be put around the lines.
void check_chat(const Options& options, const ModelDescription& model) {
  if (!options.chat) return;
  if (options.template_text)
    throw UsageError("--template: cannot be used beside --chat, which is a template, too");
  if (!model.chat) {
    throw UsageError(fmt::format(
        "--chat: {} has no chat template: its checkpoint had none, or one that convert.py "
        "could not take apart, as it said then (--template puts a text around each line)",
        options.model));
  }
  if (!is_text(options.input_format)) {
    throw UsageError(fmt::format("--chat: cannot be used with --input-format {}",
                                 name_of(options.input_format)));
  }
}

}  // namespace

void resolve_prompts(Options& options, const ModelDescription& model) {
  if (model.network.has_encoder()) {
    refuse_with_encoder("--echo", options.echo, options);
    refuse_with_encoder("--chat", options.chat, options);
    refuse_with_encoder("--template", options.template_text.has_value(), options);
    refuse_with_encoder("--template-file", !options.template_file.empty(), options);
  }
  if (!model.network.has_encoder() && !options.target_prefix.empty())
    throw UsageError(
        fmt::format("--target-prefix: cannot be used: {} has no encoder, and a prompt can end with "
                    "what its output "
                    "is to begin with (--template)",
                    options.model));
  resolve_template(options);
  check_chat(options, model);
  for (std::string& stop : options.stop) stop = unescape(stop, "--stop");
  if (!options.stop.empty() && !is_text(options.output_format)) {
    throw UsageError(fmt::format("--stop: cannot be used with --output-format {}",
                                 name_of(options.output_format)));
  }
  if (options.newline && options.output_format != Format::kText &&
      options.output_format != Format::kPieces) {
    throw UsageError(fmt::format("--newline: cannot be used with --output-format {}",
                                 name_of(options.output_format)));
  }
}

}  // namespace xlate
