// Examines UTF-8 byte by byte.
#include "tokenization/utf8.h"

#include <algorithm>
#include <cstring>

namespace xlate {
namespace {

// Describes a character, or a maximal ill-formed part of `bytes` bytes.
struct Part {
  std::size_t bytes;
  bool valid;
};

// Returns the part that a text begins with, which is not empty (Unicode 15, table 3-7).
Part first_part(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  std::size_t length = 0;
  // The second byte has narrower bounds behind four of the lead bytes.
  unsigned low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF)
    length = 2;
  else if (lead >= 0xE0 && lead <= 0xEF)
    length = 3;
  else if (lead >= 0xF0 && lead <= 0xF4)
    length = 4;
  else
    return {1, false};
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size() || byte(i) < low || byte(i) > high) return {i, false};
    low = 0x80, high = 0xBF;
  }
  return {length, true};
}

// Returns the number of bytes of a character that begins with this byte.
std::size_t length_from(unsigned char lead) {
  return lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
}

// No white space character has more bytes.
constexpr std::size_t kLongestSpace = 3;

// Returns whether text begins with one of the separators U+001C to U+001F, which are white space to
// Python and not to Unicode.
bool starts_with_separator(std::string_view text) {
  return !text.empty() && text.front() >= 0x1C && text.front() <= 0x1F;
}

// Returns the bytes of the character at the start that is white space to Python, or 0 if there is
// none.
std::size_t leading_space(std::string_view text) {
  return starts_with_separator(text) ? 1 : white_space_at_start(text);
}

// Returns how many bytes at the beginning of a text are surely ASCII, in steps of eight.
std::size_t ascii_prefix(std::string_view text) {
  std::size_t i = 0;
  for (std::uint64_t word; i + 8 <= text.size(); i += 8) {
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  return i;
}

}  // namespace

std::size_t white_space_at_start(std::string_view text) {
  if (text.empty()) return 0;
  const auto lead = static_cast<unsigned char>(text.front());
  if (lead < 0x80) return lead == ' ' || (lead >= 0x09 && lead <= 0x0D) ? 1 : 0;
  for (const std::string_view space :
       {"\u0085", "\u00A0", "\u1680", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"}) {
    if (text.starts_with(space)) return space.size();
  }
  // These are U+2000 to U+200A.
  const bool general = text.starts_with("\xE2\x80") && text.size() >= 3;
  return general && static_cast<unsigned char>(text[2]) >= 0x80 &&
                 static_cast<unsigned char>(text[2]) <= 0x8A
             ? 3
             : 0;
}

std::size_t white_space_at_end(std::string_view text) {
  for (std::size_t bytes = 1; bytes <= kLongestSpace && bytes <= text.size(); ++bytes) {
    if (white_space_at_start(text.substr(text.size() - bytes)) == bytes) return bytes;
  }
  return 0;
}

bool make_valid_utf8(std::string& text) {
  std::string repaired;
  bool changed = false;
  std::size_t copied = 0;
  for (std::size_t i = ascii_prefix(text); i < text.size();) {
    const Part part = first_part(std::string_view(text).substr(i));
    if (!part.valid) {
      repaired.append(text, copied, i - copied).append(kReplacement);
      copied = i + part.bytes;
      changed = true;
    }
    i += part.bytes;
  }
  if (changed) text = std::move(repaired.append(text, copied, std::string::npos));
  return changed;
}

std::size_t valid_character_bytes(std::string_view text) {
  const Part part = first_part(text);
  return part.valid ? part.bytes : 0;
}

std::size_t character_bytes(std::string_view text) {
  return std::min(text.size(), length_from(static_cast<unsigned char>(text.front())));
}

std::string_view without_leading_space(std::string_view text) {
  while (const std::size_t bytes = leading_space(text)) text.remove_prefix(bytes);
  return text;
}

std::string_view without_trailing_space(std::string_view text) {
  for (std::size_t bytes = 1; bytes <= kLongestSpace && bytes <= text.size();) {
    if (leading_space(text.substr(text.size() - bytes)) != bytes) {
      ++bytes;
      continue;
    }
    text.remove_suffix(bytes);
    bytes = 1;
  }
  return text;
}

std::string_view without_cut_character(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    if (length_from(byte) > back) text.remove_suffix(back);
    break;
  }
  return text;
}

}  // namespace xlate
