// Reads an object of JSON (RFC 8259) by its text. The values stay as they are written, so that a
// number keeps all of its digits. Nothing is recursive: deep nesting cannot exhaust the stack.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

/// Views a member of an object. The views lie in the text of the object.
struct JsonMember {
  std::string key;         // Its escapes are replaced.
  std::string_view text;   // It is all of the member, from its key to its value.
  std::string_view value;  // It is the value as it is written.
};

/// The largest number of objects and arrays that may lie in one another.
inline constexpr std::size_t kMostNestedJson = 512;

/// Returns the members of the object that the text, which is valid UTF-8, consists of, in their
/// order. A key may come several times. Throws Error, which names the byte, counted from 1, if the
/// text is anything but one object of JSON, has an escape of half a surrogate pair, or is nested
/// more than kMostNestedJson deep.
std::vector<JsonMember> read_json_object(std::string_view text);

/// Returns the text that the value of a member stands for, or nothing if it is no string.
std::optional<std::string> json_string(std::string_view value);

/// Appends the text, which is valid UTF-8, as a JSON string. Only quotation marks, backslashes and
/// control characters are escaped.
void append_json_string(std::string& out, std::string_view text);

}  // namespace xlate
