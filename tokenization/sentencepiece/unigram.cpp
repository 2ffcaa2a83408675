// Segments text by the rules of SentencePiece 0.2.2, and replaces what no piece stands for.
#include "tokenization/sentencepiece/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.h"

namespace xlate {
namespace {

using Type = SentencePieceModel::Type;

// The score of a character that is no piece is the lowest score of a normal piece minus this, as in
// SentencePiece (kUnkPenalty).
constexpr float kUnknownPenalty = 10;

Trie trie_of(const SentencePieceModel& model) {
  std::vector<Trie::Key> keys;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type == Type::kNormal || piece.type == Type::kUserDefined)
      keys.push_back({piece.text, static_cast<std::int32_t>(id)});
  }
  return Trie(std::move(keys));
}

// Returns the score of a symbol that the user defined. It is never lower than that of other pieces
// of the same text, whose scores are logarithms of probabilities. SentencePiece has given it this
// value, to the last bit, since 0.2.2.
float score_of_symbol(std::size_t bytes) {
  return static_cast<float>(0.1 * static_cast<double>(bytes - 1));
}

// Returns the model's Viterbi search. Throws Error if a score is not a number.
Viterbi<float> viterbi_of(const SentencePieceModel& model, const std::string& name) {
  float least = std::numeric_limits<float>::max();
  std::vector<float> scores;
  for (const auto& piece : model.pieces) {
    if (std::isnan(piece.score))
      fail("{}: the score of piece '{}' is not a number", name, piece.text);
    if (piece.type == Type::kNormal) least = std::min(least, piece.score);
    scores.push_back(piece.type == Type::kUserDefined ? score_of_symbol(piece.text.size())
                                                      : piece.score);
  }
  return {trie_of(model), std::move(scores), least - kUnknownPenalty};
}

}  // namespace

Unigram::Unigram(SentencePieceModel model, const std::string& name)
    : model_(std::move(model)),
      normalizer_(model_, name),
      viterbi_(viterbi_of(model_, name)),
      unknown_(model_, name) {}

void Unigram::segment(std::string_view text, Segmentation& out) const {
  const std::string normalized = normalizer_.normalize(text);
  bool after_unknown = false;
  for (const auto& part : viterbi_.segment(normalized)) {
    const bool unknown = part.id == Viterbi<float>::kUnknown;
    if (unknown)
      unknown_.append(std::string_view(normalized).substr(part.begin, part.end - part.begin),
                      after_unknown, out);
    else
      out.ids.push_back(part.id);
    after_unknown = unknown;
  }
}

}  // namespace xlate
