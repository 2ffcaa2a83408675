// Segments text by a BPE model of SentencePiece, which joins the neighbouring pieces that together
// have the largest score.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/pair_merges.h"
#include "tokenization/sentencepiece/normalizer.h"
#include "tokenization/sentencepiece/segmenter.h"
#include "tokenization/sentencepiece/unknown_text.h"
#include "tokenization/trie.h"

namespace xlate {

/// Segments as the SentencePiece library does, several times as fast. Const functions may be called
/// from several threads at once.
class SentencePieceBpe {
 public:
  /// Takes a model; the bytes that it points into must outlive the object. `name` names the model
  /// in messages. Throws Error if the character map is damaged, if a score is not a number, or if
  /// the byte pieces are not complete. can_segment() must be true.
  SentencePieceBpe(SentencePieceModel model, const std::string& name);
  /// Returns whether the class can segment by the model. It cannot if the model has unused pieces,
  /// which the library splits again after it has joined them, or a piece of more than 1024 bytes.
  static bool can_segment(const SentencePieceModel&);

  /// Normalizes a text in valid UTF-8 and appends its pieces to `out`.
  void segment(std::string_view text, Segmentation& out) const;

 private:
  void add_pairs();
  std::int32_t symbol_of(std::string_view text) const;

  SentencePieceModel model_;
  Normalizer normalizer_;
  UnknownText unknown_;
  // A piece that the user defined is one symbol, and is joined with nothing.
  Trie user_defined_;
  // Maps the texts that symbols may have to their numbers: a piece to its id, and a character that
  // is part of a piece but none itself to a number behind all ids.
  std::unordered_map<std::string_view, std::int32_t> symbols_;
  // Most characters have one byte, for which a look-up here is faster. −1 stands for no symbol.
  std::array<std::int32_t, 256> symbols_of_bytes_{};
  bool splits_at_marks_;
  PairMerges merges_;
};

}  // namespace xlate
