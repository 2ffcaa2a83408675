// Reads a precompiled character map and walks through its trie.
#include "tokenization/charsmap.h"

#include <cstring>

#include "engine/error.h"

namespace xlate {
namespace {

constexpr std::size_t kUnitBytes = 4;

}  // namespace

// The character map is a number of bytes (4 bytes, little-endian), a trie of that many bytes, and
// the texts that the trie's values point into.
Charsmap::Charsmap(std::string_view map, const std::string& name) {
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
std::uint32_t Charsmap::unit(std::uint32_t place) const {
  std::uint32_t value = 0x80000000u;
  if (place < units_.size() / kUnitBytes)
    std::memcpy(&value, units_.data() + place * kUnitBytes, sizeof(value));
  return value;
}

// Returns the last rule that is found on the way through the trie before stop() returns true. The
// units have the layout of Darts-clone: bits 0 to 7 hold the byte that leads to the unit, bit 8
// says whether a key ends at it, and bits 9 to 30 say how far away its children are. Bit 31 marks
// the value of a key, which is in the child of byte 0.
template <class Stop>
Charsmap::Rule Charsmap::find(std::string_view text, const Stop& stop) const {
  const auto children = [](std::uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
  };
  std::uint32_t place = children(unit(0));
  Rule found{{}, 0};
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    place ^= byte;
    const std::uint32_t node = unit(place);
    if ((node & 0x800000FFu) != byte) break;
    place ^= children(node);
    if ((node >> 8 & 1) == 0) continue;
    const std::size_t value = unit(place) & 0x7FFFFFFFu;
    if (value < replacements_.size()) found = {replacements_.data() + value, i + 1};
    if (stop(found)) break;
  }
  return found;
}

Charsmap::Rule Charsmap::longest_rule(std::string_view text) const {
  return find(text, [](const Rule&) { return false; });
}

Charsmap::Rule Charsmap::shortest_rule(std::string_view text) const {
  return find(text, [](const Rule& rule) { return rule.bytes > 0; });
}

}  // namespace xlate
