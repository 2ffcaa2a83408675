// Normalizes text by the rules of a SentencePiece model: its character map replaces characters,
// superfluous spaces are taken out, and the others become marks (U+2581).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tokenization/sentencepiece_model.h"
#include "tokenization/trie.h"

namespace xlate {

/// Holds the rules of one model. Const functions may be called from several threads at once.
class Normalizer {
 public:
  /// Takes the rules of `model`; the bytes that it points into must outlive the object. `name`
  /// names the model in messages. Throws Error if the character map is damaged.
  Normalizer(const SentencePieceModel& model, const std::string& name);

  /// Returns a text in valid UTF-8 as the model's pieces are written. The result is empty if
  /// nothing is left of the text. SentencePiece's Normalizer::Normalize gives the same.
  std::string normalize(std::string_view text) const;

 private:
  /// Says what the first `bytes` bytes of a text become.
  struct Replacement {
    std::string_view text;
    std::size_t bytes;
  };
  /// Returns what the beginning of the text becomes: a piece that the user defined stays, else the
  /// longest rule applies, else one character stays. The text is not empty.
  Replacement first_replacement(std::string_view text) const;
  Replacement longest_rule(std::string_view text) const;
  std::uint32_t unit(std::uint32_t place) const;

  SentencePieceModel::Normalization rules_;
  // The trie of the character map is a double array of Darts-clone, with little-endian units of 4
  // bytes.
  std::string_view units_;
  // The replacements of the character map each end in a NUL.
  std::string_view replacements_;
  // The pieces that the user defined are never changed.
  Trie user_defined_;
};

}  // namespace xlate
