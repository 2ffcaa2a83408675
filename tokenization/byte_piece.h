// Reads the pieces of SentencePiece models that stand for bytes.
#pragma once

#include <charconv>
#include <string_view>

namespace xlate {

/// Returns the byte that a piece like <0x0A> stands for, or −1 if it is no such piece.
inline int byte_of_piece(std::string_view piece) {
  int byte = 0;
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return -1;
  const char* end = piece.data() + 5;
  return std::from_chars(piece.data() + 3, end, byte, 16).ptr == end ? byte : -1;
}

}  // namespace xlate
