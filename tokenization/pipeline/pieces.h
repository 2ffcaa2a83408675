// Looks up which pieces of a vocabulary are text for a tokenizer's model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/vocabulary.h"

namespace xlate {

/// Holds a vocabulary without the special tokens. A model never makes these of text, because a line
/// must not be able to forge them. Const functions may be called from several threads at once.
class Pieces {
 public:
  /// Takes a vocabulary that looks up both ways, which must outlive the object, and the ids of its
  /// special tokens.
  Pieces(const Vocabulary& vocabulary, const std::vector<std::int32_t>& special);

  std::int64_t size() const { return vocabulary_.size(); }
  bool is_text(std::int32_t id) const { return is_text_[static_cast<std::size_t>(id)]; }
  /// Returns the piece of an id, or an empty text if the id has none.
  std::string_view piece_of(std::int32_t id) const { return vocabulary_.piece_of(id); }
  /// Returns the id of a piece that is text, or −1 if there is none.
  std::int32_t id_of(std::string_view piece) const {
    const std::optional<std::int32_t> id = vocabulary_.id_of(piece);
    return id && is_text(*id) ? *id : -1;
  }
  /// Returns the id of the byte piece <0x00> to <0xFF> for a byte, or −1 if there is none.
  std::int32_t id_of_byte(unsigned char byte) const;

 private:
  const Vocabulary& vocabulary_;
  std::vector<bool> is_text_;
};

/// Returns the letters that stand for the bytes of a text in the pieces of byte-level BPE (GPT-2).
std::string byte_level_letters(std::string_view bytes);
/// Appends the bytes that the letters of a piece stand for, or the piece itself if one of its
/// characters is no such letter.
void append_bytes_of(std::string_view piece, std::string& bytes);

}  // namespace xlate
