// UTF-8 as it comes from the world: made valid before anything else sees it.
#pragma once

#include <string>
#include <string_view>

namespace xlate {

/// Replaces each maximal ill-formed part by one U+FFFD (Unicode 15, section 3.9, "U+FFFD
/// Substitution of Maximal Subparts"). Returns whether there was any.
bool make_valid_utf8(std::string& text);

/// Bytes of the character that valid text, which is not empty, begins with.
std::size_t character_bytes(std::string_view text);

/// `text` without the white space at its beginning or end: the characters that Unicode calls so,
/// and U+001C to U+001F, as in Python's strip().
std::string_view without_leading_space(std::string_view text);
std::string_view without_trailing_space(std::string_view text);

/// `text` without a character that its end cuts in two.
std::string_view without_cut_character(std::string_view text);

}  // namespace xlate
