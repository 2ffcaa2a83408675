// Segments text by a unigram language model of SentencePiece (Kudo, 2018): finds the segmentation
// whose pieces have the largest sum of scores.
#pragma once

#include <string>
#include <string_view>

#include "tokenization/sentencepiece/model.h"
#include "tokenization/sentencepiece/normalizer.h"
#include "tokenization/sentencepiece/segmenter.h"
#include "tokenization/sentencepiece/unknown_text.h"
#include "tokenization/viterbi.h"

namespace xlate {

/// Segments as SentencePiece from 0.2.2 on does, to the last bit of the scores. Const functions may
/// be called from several threads at once.
class Unigram {
 public:
  /// Takes a model; the bytes that it points into must outlive the object. `name` names the model
  /// in messages. Throws Error if the character map is damaged, if a score is not a number, or if a
  /// model that falls back to bytes lacks one of the byte pieces.
  Unigram(SentencePieceModel model, const std::string& name);

  /// Normalizes a text in valid UTF-8 and appends its pieces to `out`.
  void segment(std::string_view text, Segmentation& out) const;

 private:
  SentencePieceModel model_;
  Normalizer normalizer_;
  Viterbi<float> viterbi_;
  UnknownText unknown_;
};

}  // namespace xlate
