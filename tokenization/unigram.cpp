// Finds the best segmentation of a unigram model by Viterbi's algorithm, with the rules of
// SentencePiece 0.2.2.
#include "tokenization/unigram.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/error.h"
#include "tokenization/utf8.h"

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

// Returns the byte that a piece like <0x0A> stands for. Throws Error for any other piece.
std::size_t byte_of(std::string_view piece, const std::string& name) {
  std::size_t byte = 0;
  const bool framed = piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
  if (!framed ||
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16).ptr != piece.data() + 5) {
    fail("{}: the byte piece '{}', expected <0x00> to <0xFF>", name, piece);
  }
  return byte;
}

}  // namespace

Unigram::Unigram(SentencePieceModel model, const std::string& name)
    : model_(std::move(model)), normalizer_(model_, name), trie_(trie_of(model_)) {
  float least = std::numeric_limits<float>::max();
  for (const auto& piece : model_.pieces) {
    if (std::isnan(piece.score))
      fail("{}: the score of piece '{}' is not a number", name, piece.text);
    if (piece.type == Type::kNormal) least = std::min(least, piece.score);
  }
  unknown_score_ = least - kUnknownPenalty;
  bytes_.fill(-1);
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const auto& piece = model_.pieces[id];
    scores_.push_back(piece.type == Type::kUserDefined ? score_of_symbol(piece.text.size())
                                                       : piece.score);
    if (piece.type != Type::kByte) continue;
    bytes_[byte_of(piece.text, name)] = static_cast<std::int32_t>(id);
  }
  if (model_.byte_fallback && std::find(bytes_.begin(), bytes_.end(), -1) != bytes_.end())
    fail("{}: a byte has no piece", name);
}

// This is Viterbi's algorithm, from the left. All sums are float32, and only a path with a larger
// sum replaces another. Of paths with the same sum the one whose last piece begins first, and so is
// the longest, stays.
std::vector<Unigram::BestPath> Unigram::best_paths(std::string_view normalized) const {
  std::vector<BestPath> ways(normalized.size() + 1);
  const auto offer = [&](std::size_t start, std::size_t length, std::int32_t id, float score) {
    BestPath& way = ways[start + length];
    const float sum = ways[start].score + score;
    if (way.id < 0 || sum > way.score) way = {sum, id, static_cast<std::uint32_t>(start)};
  };
  for (std::size_t start = 0; start < normalized.size();) {
    const std::string_view rest = normalized.substr(start);
    const std::size_t character = character_bytes(rest);
    bool is_piece = false;
    trie_.each_prefix(rest, [&](std::size_t length, std::int32_t id) {
      offer(start, length, id, scores_[static_cast<std::size_t>(id)]);
      is_piece |= length == character;
    });
    if (!is_piece) offer(start, character, model_.unknown, unknown_score_);
    start += character;
  }
  return ways;
}

void Unigram::segment(std::string_view text, Segmentation& out) const {
  const std::string normalized = normalizer_.normalize(text);
  const std::vector<BestPath> ways = best_paths(normalized);
  std::vector<std::size_t> ends;
  for (std::size_t end = normalized.size(); end > 0; end = ways[end].start) ends.push_back(end);
  bool after_unknown = false;
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const BestPath& way = ways[*end];
    const bool unknown = way.id == model_.unknown;
    if (unknown)
      append_unknown(std::string_view(normalized).substr(way.start, *end - way.start),
                     after_unknown, out);
    else
      out.ids.push_back(way.id);
    after_unknown = unknown;
  }
}

// Neighbouring unknown characters become one unknown piece, or a piece for each byte if the model
// falls back to bytes.
void Unigram::append_unknown(std::string_view text, bool continued, Segmentation& out) const {
  if (model_.byte_fallback) {
    for (const char byte : text) out.ids.push_back(bytes_[static_cast<unsigned char>(byte)]);
  } else if (continued) {
    out.unknown.back() += text;
  } else {
    out.ids.push_back(model_.unknown);
    out.unknown.emplace_back(text);
  }
}

}  // namespace xlate
