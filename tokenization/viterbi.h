// Finds the most probable segmentation of a text by a unigram language model (Kudo, 2018).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenization/trie.h"
#include "tokenization/utf8.h"

namespace xlate {

/// Holds the pieces of a model and their scores, which are logarithms of probabilities. Score is
/// the type of the sums: SentencePiece adds float32 numbers, and Hugging Face's tokenizers adds
/// float64 numbers, which decides between segmentations whose sums are nearly equal. Const
/// functions may be called from several threads at once.
template <class Score>
class Viterbi {
 public:
  /// Is a part of the text. Its id is kUnknown if it is a character that is no piece.
  struct Part {
    std::uint32_t begin = 0, end = 0;
    std::int32_t id = 0;
  };
  static constexpr std::int32_t kUnknown = -1;

  /// Takes a trie of the pieces with their ids, and the scores by id. A character that is no piece
  /// has the score `unknown`.
  Viterbi(Trie trie, std::vector<Score> scores, Score unknown)
      : trie_(std::move(trie)), scores_(std::move(scores)), unknown_(unknown) {}

  /// Returns the parts with the largest sum of scores, from left to right. This is Viterbi's
  /// algorithm, from the left. Only a path with a larger sum replaces another. If
  /// sums are equal, the path whose last piece begins first, and so is the longest, stays.
  std::vector<Part> segment(std::string_view text) const {
    std::vector<Way> ways(text.size() + 1);
    const auto offer = [&](std::size_t start, std::size_t length, std::int32_t id, Score score) {
      Way& way = ways[start + length];
      const Score sum = ways[start].score + score;
      if (way.id == kNone || sum > way.score) way = {sum, id, static_cast<std::uint32_t>(start)};
    };
    for (std::size_t start = 0; start < text.size();) {
      const std::string_view rest = text.substr(start);
      const std::size_t character = character_bytes(rest);
      bool is_piece = false;
      trie_.each_prefix(rest, [&](std::size_t length, std::int32_t id) {
        offer(start, length, id, scores_[static_cast<std::size_t>(id)]);
        is_piece |= length == character;
      });
      if (!is_piece) offer(start, character, kUnknown, unknown_);
      start += character;
    }
    std::vector<Part> parts;
    for (auto end = static_cast<std::uint32_t>(text.size()); end > 0;) {
      const Way& way = ways[end];
      parts.push_back({way.start, end, way.id});
      end = way.start;
    }
    return {parts.rbegin(), parts.rend()};
  }

 private:
  static constexpr std::int32_t kNone = -2;
  /// Describes the best path to a place of the text: the sum of its scores, its last piece, and the
  /// place where that begins. With the id kNone there is no path yet.
  struct Way {
    Score score = 0;
    std::int32_t id = kNone;
    std::uint32_t start = 0;
  };

  Trie trie_;
  std::vector<Score> scores_;
  Score unknown_;
};

}  // namespace xlate
