// A SentencePiece model's own normalization of text: its character map, blanks made marks (U+2581),
// superfluous ones taken out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tokenization/sentencepiece_model.h"
#include "tokenization/trie.h"

namespace xlate {

/// Const functions may be called from several threads at once.
class Normalizer {
 public:
  /// `model` and the bytes that it points into must outlive the object. `name` names the model in
  /// errors. Throws Error where the character map is damaged.
  Normalizer(const SentencePieceModel& model, const std::string& name);

  /// Valid UTF-8 as the model's pieces are written; empty where nothing is left of it.
  std::string normalize(std::string_view text) const;

 private:
  /// What the beginning of a text becomes, and how many of its bytes that was.
  struct Replacement {
    std::string_view text;
    std::size_t bytes;
  };
  Replacement first_replacement(std::string_view text) const;
  Replacement longest_rule(std::string_view text) const;
  std::uint32_t unit(std::uint32_t place) const;

  SentencePieceModel::Normalization rules_;
  std::string_view
      units_;  // of the character map: a Darts-clone double array, 4 bytes a unit, little-endian
  std::string_view replacements_;  // of the character map: texts that end in a NUL
  Trie user_defined_;              // pieces that are never changed
};

}  // namespace xlate
