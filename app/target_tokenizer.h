// Reads the lines of --score-pairs: splits each into a source and a target, and makes ids of the
// target.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "app/options.h"
#include "app/prompt_template.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Holds the two texts of a line.
struct TextPair {
  std::string_view source, target;
};

/// Splits a line at its first tab: SOURCE<TAB>TARGET. Both texts of a line of white space are
/// empty. Throws Error if there is no tab.
TextPair read_pair(std::string_view line);

/// Makes ids of targets. Const functions may be called from several threads at once.
class TargetTokenizer {
 public:
  /// Holds the ids of a target as the decoder scores them, without a forced first token.
  struct Target {
    std::vector<std::int32_t> ids;
    // They count the tokens of the whole target, a forced first token included, and how many of
    // them there may be.
    std::size_t tokens = 0, most = 0;
  };

  /// The options must have been filled in by resolve(), and both arguments must outlive the object.
  TargetTokenizer(const Options& options, const Tokenizer& tokenizer)
      : options_(options), tokenizer_(tokenizer) {}

  /// Returns the ids of a target of a model with an encoder. `first` is its forced first token, or
  /// −1. Throws Error if the target has an id or a piece that the model does not have.
  Target target_of(std::string_view text, std::int32_t first) const;
  /// Returns the ids with which a target begins (--target-prefix), without the forced first token
  /// `first`. Throws Error as target_of() does, and if there are more than Options::longest_prefix.
  std::vector<std::int32_t> prefix_of(std::string_view text, std::int32_t first) const;
  /// Returns the ids of what continues a prompt, of which the model reads `prompt_tokens` tokens.
  /// `frame` stands around the line of the prompt, or is null. `is_cut` says that the prompt has
  /// more tokens than are read. Throws Error as target_of() does.
  Target continuation_of(std::string_view line, const PromptTemplate* frame, bool is_cut,
                         std::size_t prompt_tokens, std::string_view text) const;

 private:
  std::vector<std::int32_t> ids_of(std::string_view text) const;
  std::vector<std::int32_t> ids_behind(std::int32_t first, std::string_view text) const;
  Target ended(std::vector<std::int32_t> ids, std::size_t most, bool has_first) const;

  const Options& options_;
  const Tokenizer& tokenizer_;
};

}  // namespace xlate
