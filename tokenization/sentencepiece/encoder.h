// Makes ids of a vocabulary of text, by a SentencePiece model whose pieces are looked up in it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/sentencepiece/segmenter.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// Looks up the pieces of one model. Const functions may be called from several threads at once.
class SentencePieceEncoder {
 public:
  /// Takes a serialized model and the vocabulary, which must both outlive the object, and the id of
  /// a piece that is not in the vocabulary. `name` names the model in messages. Throws Error if the
  /// model cannot be read.
  SentencePieceEncoder(std::string_view model, const std::string& name,
                       const Vocabulary& vocabulary, std::int32_t unknown);

  /// Appends the ids of text that is segmented. Text that the model does not know is looked up in
  /// the vocabulary, which may have more pieces than the model: a shared vocabulary has those of
  /// the other side's model too.
  void append(std::string_view text, std::vector<std::int32_t>& ids) const;
  /// Returns the id of a piece, or the unknown token's if it has none.
  std::int32_t id_of(std::string_view piece) const {
    return vocabulary_.id_of(piece).value_or(unknown_);
  }

 private:
  const Vocabulary& vocabulary_;
  Segmenter segmenter_;
  std::int32_t unknown_;
  // Maps each id of the model to an id of the vocabulary.
  std::vector<std::int32_t> ids_of_model_;
};

}  // namespace xlate
