// Normalizes text as SentencePiece's Normalizer::Normalize does.
#include "tokenization/normalizer.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::string_view kMark = "\xE2\x96\x81";  // This is U+2581.
constexpr std::size_t kUnitBytes = 4;

Trie user_defined_pieces(const SentencePieceModel& model) {
  std::vector<Trie::Key> keys;
  for (const auto& piece : model.pieces) {
    if (piece.type == SentencePieceModel::Type::kUserDefined) keys.push_back({piece.text, 0});
  }
  return Trie(std::move(keys));
}

}  // namespace

// The character map is a number of bytes (4 bytes, little-endian), a trie of that many bytes, and
// the texts that the trie's values point into.
Normalizer::Normalizer(const SentencePieceModel& model, const std::string& name)
    : rules_(model.normalization), user_defined_(user_defined_pieces(model)) {
  std::string_view map = rules_.charsmap;
  if (map.empty()) return;
  std::uint32_t bytes = 0;
  if (map.size() > sizeof(bytes)) std::memcpy(&bytes, map.data(), sizeof(bytes));
  if (bytes < kUnitBytes || bytes % kUnitBytes != 0 || bytes > map.size() - sizeof(bytes)) {
    fail("{}: the character map's trie has {} bytes of {}", name, bytes, map.size());
  }
  units_ = map.substr(sizeof(bytes), bytes);
  replacements_ = map.substr(sizeof(bytes) + bytes);
  if (replacements_.empty() || replacements_.back() != '\0')
    fail("{}: the character map's texts do not end in a NUL", name);
}

// Returns a unit of the trie. For a place outside of the trie, to which only a damaged map leads,
// it returns a unit that matches no byte.
std::uint32_t Normalizer::unit(std::uint32_t place) const {
  std::uint32_t value = 0x80000000u;
  if (place < units_.size() / kUnitBytes)
    std::memcpy(&value, units_.data() + place * kUnitBytes, sizeof(value));
  return value;
}

// Returns the longest rule of the character map that the text begins with, or 0 bytes if there is
// none. The units have the layout of Darts-clone: bits 0 to 7 hold the byte that leads to the unit,
// bit 8 says whether a key ends at it, and bits 9 to 30 say how far away its children are. Bit 31
// marks the value of a key, which is in the child of byte 0.
Normalizer::Replacement Normalizer::longest_rule(std::string_view text) const {
  const auto children = [](std::uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
  };
  std::uint32_t place = children(unit(0));
  Replacement longest{{}, 0};
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    place ^= byte;
    const std::uint32_t found = unit(place);
    if ((found & 0x800000FFu) != byte) break;
    place ^= children(found);
    if ((found >> 8 & 1) == 0) continue;
    const std::size_t value = unit(place) & 0x7FFFFFFFu;
    if (value < replacements_.size()) longest = {replacements_.data() + value, i + 1};
  }
  return longest;
}

Normalizer::Replacement Normalizer::first_replacement(std::string_view text) const {
  if (const std::size_t length = user_defined_.longest_prefix(text); length > 0)
    return {text.substr(0, length), length};
  if (!units_.empty()) {
    if (const Replacement rule = longest_rule(text); rule.bytes > 0) return rule;
  }
  const std::size_t length = character_bytes(text);
  return {text.substr(0, length), length};
}

std::string Normalizer::normalize(std::string_view text) const {
  const std::string_view blank = rules_.escape_whitespaces ? kMark : " ";
  std::string out;
  if (rules_.remove_extra_whitespaces) {
    while (!text.empty()) {
      const Replacement step = first_replacement(text);
      if (step.text != " ") break;
      text.remove_prefix(step.bytes);
    }
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2 + kMark.size());
  if (rules_.add_dummy_prefix && !rules_.whitespace_as_suffix) out += blank;
  for (bool after_blank = rules_.remove_extra_whitespaces; !text.empty();) {
    Replacement step = first_replacement(text);
    text.remove_prefix(step.bytes);
    if (after_blank)
      step.text.remove_prefix(std::min(step.text.find_first_not_of(' '), step.text.size()));
    if (step.text.empty()) continue;
    for (const char c : step.text) {
      if (c == ' ')
        out += blank;
      else
        out += c;
    }
    after_blank = rules_.remove_extra_whitespaces && step.text.ends_with(' ');
  }
  if (rules_.remove_extra_whitespaces) {
    while (out.ends_with(blank)) out.resize(out.size() - blank.size());
  }
  if (rules_.add_dummy_prefix && rules_.whitespace_as_suffix) out += blank;
  return out;
}

}  // namespace xlate
