// Puts the text of --template or of a chat template around lines.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/marked_text.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns the text with \n, \t, \{ and \\ replaced by the characters that they stand for. Throws
/// UsageError, which begins with the name of the option, if a backslash stands before anything
/// else.
std::string unescape(std::string_view text, const std::string& option);

/// Returns what a template has around the line, for each {line} in it. Escapes are replaced, and
/// \{line} is no {line}. Throws UsageError, which begins with the name of the option, if the text
/// is no valid template.
TextFrame read_template(std::string_view text, const std::string& option);

/// Makes prompts of lines. Const functions may be called from several threads at once.
class PromptTemplate {
 public:
  /// Holds the ids of a prompt, and how many the prompt of the whole line has.
  struct Prompt {
    std::vector<std::int32_t> ids;
    std::size_t tokens = 0;
  };

  /// Takes what stands around lines, the tokenizer, which must outlive the object, and the most
  /// tokens of a prompt. Throws UsageError if the prompt of an empty line has as many.
  PromptTemplate(TextFrame, const Tokenizer&, std::size_t longest);

  /// Returns the ids that the tokenizer gives the template with this line in it, which is valid
  /// UTF-8. Special tokens are looked for in the template and not in the line. If there are more
  /// ids than a prompt may have, the line is cut at its end, and the template stays whole. There
  /// are no ids if the line adds nothing to the template.
  Prompt prompt_of(std::string_view line) const;

  /// Returns the ids of a text behind the prompt of this line (Tokenizer::encode_continuation).
  std::vector<std::int32_t> continuation_of(std::string_view line, std::string_view text) const {
    return tokenizer_.encode_continuation(frame_.around(line), text);
  }

 private:
  std::vector<std::int32_t> ids_around(std::string_view line) const;
  std::vector<std::int32_t> ids_of_beginning(std::string_view line) const;

  TextFrame frame_;
  const Tokenizer& tokenizer_;
  std::size_t longest_;
  // These are the ids of the template around an empty line.
  std::vector<std::int32_t> ids_alone_;
};

}  // namespace xlate
