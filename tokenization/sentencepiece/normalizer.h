// Normalizes text by the rules of a SentencePiece model: its character map replaces characters,
// superfluous spaces are taken out, and the others become marks (U+2581).
#pragma once

#include <string>
#include <string_view>

#include "tokenization/charsmap.h"
#include "tokenization/sentencepiece/model.h"
#include "tokenization/trie.h"

namespace xlate {

/// Holds the rules of one model. Const functions may be called from several threads at once.
class Normalizer {
 public:
  /// Takes the rules of `model`; the bytes that it points into must outlive the object. `name`
  /// names the model in messages. Throws Error if the character map is damaged.
  Normalizer(const SentencePieceModel& model, const std::string& name);
  /// Takes rules alone. No piece is protected from them.
  Normalizer(const SentencePieceModel::Normalization& rules, const std::string& name)
      : name_(name), rules_(rules), charsmap_(rules_.charsmap, name) {}

  /// Returns a text in valid UTF-8 as the model's pieces are written. The result is empty if
  /// nothing is left of the text. SentencePiece's Normalizer::Normalize gives the same. Throws
  /// Error if the character map makes the text much longer (GrowthLimit).
  std::string normalize(std::string_view text) const;

 private:
  /// Returns what the beginning of the text becomes: a piece that the user defined stays, else the
  /// longest rule applies, else one character stays. The text is not empty.
  Charsmap::Rule first_replacement(std::string_view text) const;

  std::string name_;
  SentencePieceModel::Normalization rules_;
  Charsmap charsmap_;
  // The pieces that the user defined are never changed.
  Trie user_defined_;
};

}  // namespace xlate
