// Makes the UTF-8 of the input valid, before anything else reads it, and finds characters and white
// space in it.
#pragma once

#include <string>
#include <string_view>

namespace xlate {

/// This mark stands for a space in pieces.
inline constexpr std::string_view kMark = "\u2581";
/// This character stands for bytes that are no character.
inline constexpr std::string_view kReplacement = "\uFFFD";

/// Replaces each maximal ill-formed part of the text by one U+FFFD (Unicode 15, section 3.9,
/// "U+FFFD Substitution of Maximal Subparts"). Returns whether there was any.
bool make_valid_utf8(std::string& text);

/// Returns the bytes of the character that a text begins with, or 0 if the text, which is not
/// empty, begins with bytes that are no character.
std::size_t valid_character_bytes(std::string_view text);

/// Returns the bytes of the character that a text begins with. The text is valid and not empty.
std::size_t character_bytes(std::string_view text);

/// Returns the bytes of the character at the start of a text if that is white space, which is what
/// Unicode calls so (White_Space). Returns 0 otherwise.
std::size_t white_space_at_start(std::string_view text);
/// Returns the same of the character at the end of a text in valid UTF-8.
std::size_t white_space_at_end(std::string_view text);

/// Returns the text without the white space at its beginning. White space is what Unicode calls so
/// (White_Space), and U+001C to U+001F, as in Python's str.strip().
std::string_view without_leading_space(std::string_view text);
/// Returns the text without the white space at its end.
std::string_view without_trailing_space(std::string_view text);

/// Returns the text without the incomplete character at its end, if it has one. The text is valid
/// UTF-8 that may have been cut anywhere.
std::string_view without_cut_character(std::string_view text);

}  // namespace xlate
