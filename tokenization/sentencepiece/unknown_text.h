// Puts something in the place of text that is no piece of a SentencePiece model.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tokenization/sentencepiece/model.h"
#include "tokenization/sentencepiece/segmenter.h"

namespace xlate {

/// Knows the byte pieces of a model. Const functions may be called from several threads at once.
class UnknownText {
 public:
  /// Takes a model. `name` names it in messages. Throws Error if a model that falls back to bytes
  /// lacks one of the byte pieces.
  UnknownText(const SentencePieceModel& model, const std::string& name);

  /// Appends text that is no piece: a piece for each of its bytes if the model falls back to bytes,
  /// and otherwise one unknown piece. `continued` says that the text before it is none either.
  /// Neighbouring unknown characters become one unknown piece.
  void append(std::string_view text, bool continued, Segmentation& out) const;

 private:
  std::int32_t unknown_;
  bool byte_fallback_;
  // Each byte has the id of its piece here, or −1 if it has none.
  std::array<std::int32_t, 256> bytes_{};
};

}  // namespace xlate
