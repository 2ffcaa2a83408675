// Knows the special tokens, and the alphabet of byte-level BPE.
#include "tokenization/pipeline/pieces.h"

#include <array>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// A letter of the alphabet has one or two bytes of UTF-8.
struct Alphabet {
  std::array<std::string, 256> letters;
  // Maps the code points of the letters, which are below 512, to bytes.
  std::array<std::int16_t, 512> bytes;

  // Printable characters of Latin-1 stand for themselves. The other bytes, in their order, have the
  // code points from 256 on.
  Alphabet() {
    bytes.fill(-1);
    unsigned next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
                             (byte >= 0xAE && byte <= 0xFF);
      const unsigned code = printable ? byte : next++;
      bytes[code] = static_cast<std::int16_t>(byte);
      if (code < 0x80)
        letters[byte] = static_cast<char>(code);
      else
        letters[byte] = {static_cast<char>(0xC0 | code >> 6),
                         static_cast<char>(0x80 | (code & 0x3F))};
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

// Returns the byte that a letter stands for, or −1 if it is none.
int byte_of(std::string_view letter) {
  const auto lead = static_cast<unsigned char>(letter[0]);
  if (letter.size() == 1) return alphabet().bytes[lead];
  if (letter.size() != 2) return -1;
  const unsigned code = (lead & 0x1Fu) << 6 | (static_cast<unsigned char>(letter[1]) & 0x3Fu);
  return code < 512 ? alphabet().bytes[code] : -1;
}

}  // namespace

Pieces::Pieces(const Vocabulary& vocabulary, const std::vector<std::int32_t>& special)
    : vocabulary_(vocabulary), is_text_(static_cast<std::size_t>(vocabulary.size()), true) {
  for (const std::int32_t id : special) is_text_[static_cast<std::size_t>(id)] = false;
}

std::int32_t Pieces::id_of_byte(unsigned char byte) const {
  const std::optional<std::int32_t> id = vocabulary_.id_of(fmt::format("<0x{:02X}>", byte));
  return id.value_or(-1);
}

std::string byte_level_letters(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += alphabet().letters[static_cast<unsigned char>(byte)];
  return text;
}

void append_bytes_of(std::string_view piece, std::string& bytes) {
  const std::size_t before = bytes.size();
  for (std::size_t at = 0; at < piece.size();) {
    const std::string_view letter = piece.substr(at, character_bytes(piece.substr(at)));
    const int byte = byte_of(letter);
    if (byte < 0) {
      bytes.resize(before);
      bytes += piece;
      return;
    }
    bytes += static_cast<char>(byte);
    at += letter.size();
  }
}

}  // namespace xlate
