// Finds the tags of a line of HTML, and the text between them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/character_references.h"
#include "tokenization/text_range.h"

namespace xlate {

/// Holds a tag, a comment, or an element whose content is no text, such as a script.
struct MarkupTag {
  enum class Kind : std::uint8_t { kStart, kEnd, kAlone };

  TextRange bytes;     // in the line
  std::size_t at = 0;  // It stands before this byte of the text.
  // This is the number of the end tag of a start tag, or the other way round. It is −1 for a tag
  // that stands alone, and for a start or an end tag of which the line has no partner.
  std::int32_t partner = -1;
  Kind kind = Kind::kAlone;
  bool separates = false;  // It is no part of a word, as <br> and <td> are.
  // The text has a space here that the line does not have, between what separating tags separate.
  bool space_added = false;
  bool space_before = false, space_after = false;  // The line has white space beside it.
};

/// Holds a line without its tags.
struct Markup {
  std::string text;  // in valid UTF-8, with the characters that references stand for
  std::vector<MarkupTag> tags{};
  ReferenceStyle style{};
};

/// Reads a line in valid UTF-8, in a time proportional to its length. Malformed markup is text.
Markup read_markup(std::string_view line);

}  // namespace xlate
