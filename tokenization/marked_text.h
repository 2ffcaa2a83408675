// Defines texts of which parts belong to a template, and parts are what somebody has written.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/text_range.h"

namespace xlate {

/// Holds a text in valid UTF-8 of which parts may contain special added tokens.
struct MarkedText {
  std::string text;
  // Special added tokens are looked for within these ranges, which are in order and do not overlap.
  // Elsewhere they are text.
  std::vector<TextRange> special;
  // The tokenizer puts none of its own tokens around the text.
  bool complete = false;
};

/// Holds a prompt with room for a line.
struct TextFrame {
  // These are the texts of the template, in which special tokens are tokens. One of them stands
  // before each content, and one behind the last.
  std::vector<std::string> texts;
  // A content is a text without special tokens, or the line where it is none.
  std::vector<std::optional<std::string>> contents;
  // White space is taken off the beginning and the end of the line.
  bool trims_start = false, trims_end = false;
  // The template has the tokens that the tokenizer puts around other texts.
  bool complete = false;

  /// Returns the prompt with this line in it, which is valid UTF-8.
  MarkedText around(std::string_view line) const;
};

}  // namespace xlate
