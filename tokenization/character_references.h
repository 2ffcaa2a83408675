// Reads and writes the character references of HTML, such as &amp; and &#228;.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace xlate {

/// Holds a reference: how many bytes it has, and the character that it stands for.
struct CharacterReference {
  std::size_t bytes = 0;
  std::string character;
};

/// Returns the reference that a text begins with: a number, or a name of HTML 4 or XML, between &
/// and a semicolon. There is none if the text begins with anything else, with a name that is not
/// known, or with the number of a control character other than white space.
std::optional<CharacterReference> read_reference(std::string_view text);

/// Knows how a line writes those characters that HTML gives a meaning: `&`, `<`, `>` and the
/// no-break space. Where the line has one as such and never as a reference, text keeps it, unless
/// it would be read as markup there. Otherwise a reference is written.
class ReferenceStyle {
 public:
  /// Takes a text whose first character the line has as such.
  void see_written(std::string_view text);
  /// Takes a character that the line has as a reference.
  void see_reference(std::string_view character);
  /// Appends a text as HTML. `is_last` says that no tag follows it in the line.
  void append(std::string& out, std::string_view text, bool is_last) const;

 private:
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kReferences{
      {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\u00A0", "&nbsp;"}}};

  /// Returns the place in kReferences of the character that a text begins with, or −1.
  static int place_of(std::string_view text);
  /// Returns whether text that begins with `&` would be read as a reference, or whether one that
  /// begins with `<` may begin a tag, before the end of the last one.
  static bool is_markup(std::string_view text, bool is_before_end);

  std::array<bool, kReferences.size()> written_{}, referred_{};
};

}  // namespace xlate
