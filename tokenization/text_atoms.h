// Cuts text into words and marks.
#pragma once

#include <string_view>
#include <vector>

#include "tokenization/text_range.h"

namespace xlate {

/// Holds a word, or a mark such as a comma. Tags stand between atoms, and never inside one.
struct TextAtom {
  TextRange range;
  bool is_word = false;  // It has a letter or a digit.
};

/// Returns the words and marks of a text in valid UTF-8 by the rules of Unicode (UAX #29), without
/// the white space between them. Throws Error if ICU cannot find its data.
std::vector<TextAtom> atoms_of(std::string_view text);

}  // namespace xlate
