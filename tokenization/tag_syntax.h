// Recognizes tags of HTML.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace xlate {

/// Returns whether a `<` before this character may begin markup.
constexpr bool may_begin_tag(char next) {
  return (next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z') || next == '/' ||
         next == '!' || next == '?';
}

/// Holds what stands at a `<`.
struct TagSyntax {
  enum class Kind : unsigned char { kText, kStart, kEnd, kAlone };

  Kind kind = Kind::kText;
  // It has so many bytes. Those of text are all that was read as a tag up to where it is malformed.
  std::size_t bytes = 1;
  std::string name{};  // in lower case; it is empty for comments
};

/// Reads tags from left to right in a line. The line must outlive the object.
class TagReader {
 public:
  explicit TagReader(std::string_view line) : line_(line) {}

  /// Returns what stands at a `<`. The places of all calls must ascend.
  TagSyntax read(std::size_t place);

 private:
  TagSyntax read_declaration(std::size_t place);
  TagSyntax read_tag(std::size_t place);
  std::size_t end_of_attribute(std::size_t place);
  std::size_t end_of_content(std::size_t place, std::string_view name);
  std::size_t find(std::string_view text, std::size_t place, bool& missing);

  const std::string_view line_;
  // They say of what was once looked for and not found that the rest of the line does not have it,
  // so that reading takes a time proportional to the line's length.
  bool no_comment_end_ = false, no_double_quote_ = false, no_single_quote_ = false,
       no_script_end_ = false, no_style_end_ = false, no_greater_ = false;
};

/// Returns whether an element of this name never has an end tag.
bool is_void_element(std::string_view name);
/// Returns whether tags of this name separate words.
bool separates_words(std::string_view name);

}  // namespace xlate
