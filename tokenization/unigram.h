// The unigram language model of SentencePiece (Kudo, 2018): the segmentation whose pieces have the
// largest sum of scores.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/normalizer.h"
#include "tokenization/segmenter.h"
#include "tokenization/sentencepiece_model.h"
#include "tokenization/trie.h"

namespace xlate {

/// Const functions may be called from several threads at once.
class Unigram {
 public:
  /// The bytes that `model` points into must outlive the object. `name` names the model in errors.
  /// Throws Error where a model that falls back to bytes lacks one, or a score is not a number.
  Unigram(SentencePieceModel model, const std::string& name);

  /// Appends the pieces of valid UTF-8.
  void segment(std::string_view text, Segmentation& out) const;

 private:
  /// The best way to a place of the text: where its last piece begins, and which piece that is.
  struct BestPath {
    float score = 0;
    std::int32_t id = -1;
    std::uint32_t start = 0;
  };
  std::vector<BestPath> best_paths(std::string_view normalized) const;
  void append_unknown(std::string_view text, bool continued, Segmentation& out) const;

  SentencePieceModel model_;
  Normalizer normalizer_;
  Trie trie_;                  // of the pieces that a text may have, their ids as values
  std::vector<float> scores_;  // by id
  float unknown_score_ = 0;    // of a character that is no piece
  std::array<std::int32_t, 256> bytes_{};  // ids, where the model falls back to bytes
};

}  // namespace xlate
