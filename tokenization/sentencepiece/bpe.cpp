// Makes symbols of text, and pairs of the pieces of a model.
#include "tokenization/sentencepiece/bpe.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Type = SentencePieceModel::Type;

// The pairs of a piece take time that grows with the square of its bytes.
constexpr std::size_t kLongestPiece = 1024;

// Symbols with this number and below stand for text that is joined with nothing. Each has a number
// of its own.
constexpr std::int32_t kFirstAlone = -2;

bool is_text(const SentencePieceModel::Piece& piece) {
  return piece.type == Type::kNormal || piece.type == Type::kUserDefined;
}

Trie user_defined_pieces(const SentencePieceModel& model) {
  std::vector<Trie::Key> keys;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type == Type::kUserDefined)
      keys.push_back({model.pieces[id].text, static_cast<std::int32_t>(id)});
  }
  return Trie(std::move(keys));
}

// Returns whether no piece has a mark behind its first character, so that none is made of the ends
// of two words.
bool splits_at_marks(const SentencePieceModel& model) {
  return std::none_of(model.pieces.begin(), model.pieces.end(), [](const auto& piece) {
    return piece.type == Type::kNormal && piece.text.find(kMark, 1) != std::string_view::npos;
  });
}

// Calls each(end) for the end of every character of a text.
template <class Each>
void each_character(std::string_view text, const Each& each) {
  for (std::size_t at = 0; at < text.size();) each(at += character_bytes(text.substr(at)));
}

}  // namespace

bool SentencePieceBpe::can_segment(const SentencePieceModel& model) {
  return std::none_of(model.pieces.begin(), model.pieces.end(), [](const auto& piece) {
    return piece.type == Type::kUnused || piece.text.size() > kLongestPiece;
  });
}

SentencePieceBpe::SentencePieceBpe(SentencePieceModel model, const std::string& name)
    : model_(std::move(model)),
      normalizer_(model_, name),
      unknown_(model_, name),
      user_defined_(user_defined_pieces(model_)),
      splits_at_marks_(splits_at_marks(model_)) {
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const auto& piece = model_.pieces[id];
    if (std::isnan(piece.score))
      fail("{}: the score of piece '{}' is not a number", name, piece.text);
    if (is_text(piece)) symbols_.emplace(piece.text, static_cast<std::int32_t>(id));
  }
  auto next = static_cast<std::int32_t>(model_.pieces.size());
  for (const auto& piece : model_.pieces) {
    if (!is_text(piece)) continue;
    std::size_t begin = 0;
    each_character(piece.text, [&](std::size_t end) {
      if (symbols_.emplace(piece.text.substr(begin, end - begin), next).second) ++next;
      begin = end;
    });
  }
  symbols_of_bytes_.fill(-1);
  for (const auto& [text, symbol] : symbols_) {
    if (text.size() == 1) symbols_of_bytes_[static_cast<unsigned char>(text.front())] = symbol;
  }
  add_pairs();
}

// Every way to split a piece into two symbols is a pair. Pairs of equal scores have equal ranks.
void SentencePieceBpe::add_pairs() {
  struct Pair {
    std::int32_t left, right, merged;
  };
  std::vector<Pair> pairs;
  std::map<float, std::uint32_t, std::greater<>> ranks;
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const auto& piece = model_.pieces[id];
    if (!is_text(piece)) continue;
    ranks.emplace(piece.score, 0);
    each_character(piece.text, [&](std::size_t end) {
      const std::int32_t left = symbol_of(piece.text.substr(0, end)),
                         right = symbol_of(piece.text.substr(end));
      if (left >= 0 && right >= 0) pairs.push_back({left, right, static_cast<std::int32_t>(id)});
    });
  }
  std::uint32_t rank = 0;
  for (auto& [score, place] : ranks) place = rank++;
  merges_ = PairMerges(pairs.size());
  for (const Pair& pair : pairs) {
    const float score = model_.pieces[static_cast<std::size_t>(pair.merged)].score;
    merges_.add(pair.left, pair.right, ranks.at(score), pair.merged);
  }
}

// Returns the number of the symbol that a text is, or −1 if it is none.
std::int32_t SentencePieceBpe::symbol_of(std::string_view text) const {
  if (text.size() == 1) return symbols_of_bytes_[static_cast<unsigned char>(text.front())];
  const auto found = symbols_.find(text);
  return found == symbols_.end() ? -1 : found->second;
}

void SentencePieceBpe::segment(std::string_view text, Segmentation& out) const {
  const std::string normalized = normalizer_.normalize(text);
  // These are the texts of symbols that are joined with nothing, in their order.
  struct Alone {
    std::string_view text;
    std::int32_t id;
  };
  std::vector<Alone> alone;
  std::vector<std::int32_t> symbols;
  // Words are merged one by one where that gives the same, because it is faster.
  std::size_t word = 0;
  for (std::string_view rest = normalized; !rest.empty();) {
    if (splits_at_marks_ && rest.starts_with(kMark)) {
      merges_.merge(symbols, word);
      word = symbols.size();
    }
    std::size_t bytes = 0;
    std::int32_t user_defined = -1;
    user_defined_.each_prefix(rest, [&](std::size_t length, std::int32_t id) {
      bytes = length;
      user_defined = id;
    });
    if (bytes == 0) bytes = character_bytes(rest);
    const std::int32_t symbol = user_defined < 0 ? symbol_of(rest.substr(0, bytes)) : -1;
    if (symbol >= 0) {
      symbols.push_back(symbol);
    } else {
      symbols.push_back(kFirstAlone - static_cast<std::int32_t>(alone.size()));
      alone.push_back({rest.substr(0, bytes), user_defined});
    }
    rest.remove_prefix(bytes);
  }
  merges_.merge(symbols, word);
  const auto pieces = static_cast<std::int32_t>(model_.pieces.size());
  std::size_t next_alone = 0, at = 0;
  bool after_unknown = false;
  for (const std::int32_t symbol : symbols) {
    const Alone* lone = symbol < 0 ? &alone[next_alone++] : nullptr;
    const std::int32_t id = lone ? lone->id : symbol < pieces ? symbol : -1;
    const std::size_t bytes = lone      ? lone->text.size()
                              : id >= 0 ? model_.pieces[static_cast<std::size_t>(id)].text.size()
                                        : character_bytes(std::string_view(normalized).substr(at));
    if (id >= 0)
      out.ids.push_back(id);
    else
      unknown_.append(std::string_view(normalized).substr(at, bytes), after_unknown, out);
    after_unknown = id < 0;
    at += bytes;
  }
}

}  // namespace xlate
