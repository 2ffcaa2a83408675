// Implements the scanner of JSON, and the writing of strings.
#include "app/json_object.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Appends a character that an escape names by its number in Unicode.
void append_character(std::string& out, std::uint32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

// Goes through a text once, from its beginning to its end.
class JsonScanner {
 public:
  explicit JsonScanner(std::string_view text) : text_(text) {}

  std::vector<JsonMember> read_object() {
    std::vector<JsonMember> members;
    skip_space();
    expect('{');
    skip_space();
    if (!take('}')) {
      do {
        members.push_back(read_member());
        skip_space();
      } while (take(','));
      expect('}', "',' or '}'");
    }
    skip_space();
    if (at_ < text_.size()) refuse("nothing behind the object");
    return members;
  }

  std::string read_string() {
    std::string text;
    expect('"', "a string");
    while (!take('"')) {
      if (at_ == text_.size()) refuse("the end of a string");
      if (static_cast<unsigned char>(text_[at_]) < 0x20) refuse("an escape of this character");
      if (take('\\'))
        read_escape(text);
      else
        text += text_[at_++];
    }
    return text;
  }

 private:
  // Throws an error that says what stands here, and what is expected.
  [[noreturn]] void refuse(std::string_view expected) const {
    if (at_ == text_.size()) fail("it ends at byte {}, expected {}", at_, expected);
    const auto byte = static_cast<unsigned char>(text_[at_]);
    if (byte < 0x20) fail("byte {}: the character U+{:04X}, expected {}", at_ + 1, byte, expected);
    const std::string_view rest = text_.substr(at_);
    fail("byte {}: '{}', expected {}", at_ + 1, rest.substr(0, character_bytes(rest)), expected);
  }
  bool is_at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take(char c) {
    if (!is_at(c)) return false;
    ++at_;
    return true;
  }
  void expect(char c) { expect(c, std::string("'") + c + "'"); }
  void expect(char c, std::string_view expected) {
    if (!take(c)) refuse(expected);
  }
  void skip_space() { at_ = std::min(text_.size(), text_.find_first_not_of(" \t\n\r", at_)); }

  JsonMember read_member() {
    skip_space();
    const std::size_t begin = at_;
    JsonMember member{.key = read_key(), .text = {}, .value = {}};
    skip_space();
    const std::size_t value = at_;
    skip_value();
    member.text = text_.substr(begin, at_ - begin);
    member.value = text_.substr(value, at_ - value);
    return member;
  }

  // Reads a key and the colon behind it.
  std::string read_key() {
    skip_space();
    std::string key = read_string();
    skip_space();
    expect(':');
    return key;
  }

  // Passes over a value. The brackets that are open are kept in a string instead of on the stack.
  void skip_value() {
    std::string closing;
    do {
      skip_space();
      if (is_at('{') || is_at('[')) {
        // The object that is read as a whole is open, too.
        if (closing.size() + 1 == kMostNestedJson)
          refuse(fmt::format("at most {} levels of nesting", kMostNestedJson));
        closing += text_[at_++] == '{' ? '}' : ']';
        skip_space();
        if (!is_at(closing.back())) {
          if (closing.back() == '}') read_key();
          continue;
        }
      } else {
        skip_scalar();
      }
      skip_end(closing);
    } while (!closing.empty());
  }

  // Passes over the brackets that close behind a value, and over the comma and the key before the
  // next value if one follows.
  void skip_end(std::string& closing) {
    while (!closing.empty()) {
      skip_space();
      if (take(closing.back())) {
        closing.pop_back();
        continue;
      }
      expect(',', closing.back() == '}' ? "',' or '}'" : "',' or ']'");
      if (closing.back() == '}') read_key();
      return;
    }
  }

  void skip_scalar() {
    if (is_at('"')) {
      read_string();
      return;
    }
    for (const std::string_view word : {"true", "false", "null"}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return;
      }
    }
    if (!is_at('-') && (at_ == text_.size() || !is_digit(text_[at_]))) refuse("a value");
    skip_number();
  }

  void skip_number() {
    take('-');
    // A number with more digits does not begin with 0.
    if (!take('0')) skip_digits();
    if (take('.')) skip_digits();
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      skip_digits();
    }
  }
  void skip_digits() {
    if (at_ == text_.size() || !is_digit(text_[at_])) refuse("a digit");
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
  }

  // Reads an escape, whose backslash has been taken.
  void read_escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kCharacters = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      append_character(out, read_escaped_number());
      return;
    }
    const std::size_t index = at_ < text_.size() ? kNames.find(text_[at_]) : std::string_view::npos;
    if (index == std::string_view::npos) refuse("one of \", \\, /, b, f, n, r, t, u");
    out += kCharacters[index];
    ++at_;
  }

  // Reads the number of a character behind \u, and the second half of a surrogate pair.
  std::uint32_t read_escaped_number() {
    const std::size_t begin = at_ - 2;
    const std::uint32_t first = read_four_digits();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first < 0xDC00 && text_.substr(at_).starts_with("\\u")) {
      at_ += 2;
      const std::uint32_t second = read_four_digits();
      if (second >= 0xDC00 && second <= 0xDFFF)
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }
    fail("byte {}: '{}', expected both halves of a surrogate pair", begin + 1,
         text_.substr(begin, 6));
  }

  std::uint32_t read_four_digits() {
    std::uint32_t number = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const char small = static_cast<char>(c | 0x20);
      if (is_digit(c))
        number = number * 16 + static_cast<std::uint32_t>(c - '0');
      else if (small >= 'a' && small <= 'f')
        number = number * 16 + static_cast<std::uint32_t>(small - 'a' + 10);
      else
        refuse("four hexadecimal digits behind \\u");
    }
    return number;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<JsonMember> read_json_object(std::string_view text) {
  return JsonScanner(text).read_object();
}

std::optional<std::string> json_string(std::string_view value) {
  if (!value.starts_with('"')) return std::nullopt;
  return JsonScanner(value).read_string();
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace xlate
