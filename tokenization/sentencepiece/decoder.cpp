// Looks up beforehand what each piece becomes, so that a text is little more than a row of copies.
#include "tokenization/sentencepiece/decoder.h"

#include <algorithm>

#include "tokenization/byte_piece.h"
#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Type = SentencePieceModel::Type;

// Appends the characters that bytes are. Each byte that belongs to none becomes U+FFFD.
void append_characters(std::string_view bytes, std::string& text) {
  while (!bytes.empty()) {
    const std::size_t length = valid_character_bytes(bytes);
    text += length > 0 ? bytes.substr(0, length) : kReplacement;
    bytes.remove_prefix(std::max<std::size_t>(length, 1));
  }
}

}  // namespace

// The first mark of a line stands for the space that normalization puts in front of a text. A model
// that takes out superfluous spaces drops the marks of all pieces in front of the first text.
SentencePieceDecoder::SentencePieceDecoder(const SentencePieceModel& model,
                                           const Vocabulary& vocabulary, const std::string& name)
    : drops_first_mark_(model.normalization.add_dummy_prefix ||
                        model.normalization.remove_extra_whitespaces),
      keeps_second_mark_(!model.normalization.remove_extra_whitespaces) {
  if (!model.denormalization.charsmap.empty()) denormalizer_.emplace(model.denormalization, name);
  Pieces pieces;
  pieces.reserve(model.pieces.size());
  for (const auto& piece : model.pieces) pieces.emplace(piece.text, &piece);
  surfaces_.reserve(static_cast<std::size_t>(vocabulary.size()));
  texts_ = model.unknown_surface;
  for (std::int64_t id = 0; id < vocabulary.size(); ++id)
    add(model, pieces, vocabulary.piece_of(static_cast<std::int32_t>(id)));
}

// Adds the surface of the next id.
void SentencePieceDecoder::add(const SentencePieceModel& model, const Pieces& pieces,
                               std::string_view piece) {
  using Kind = Surface::Kind;
  const auto found = pieces.find(piece);
  Kind kind = Kind::kText;
  std::string text(piece);
  if (found != pieces.end()) {
    const Type type = found->second->type;
    if (type == Type::kControl) {
      text.clear();
    } else if (type == Type::kUnknown) {
      // Many ids may have this piece, so that its text is stored only once, at the beginning.
      surfaces_.push_back({0, static_cast<std::uint32_t>(model.unknown_surface.size()), kind});
      return;
    } else if (type == Type::kByte) {
      kind = Kind::kByte;
      text.assign(1, static_cast<char>(byte_of_piece(piece)));
    } else {
      if (piece.starts_with(kMark)) kind = Kind::kTextBehindMark;
      replace_all(text, kMark, " ");
    }
  }
  surfaces_.push_back({texts_.size(), static_cast<std::uint32_t>(text.size()), kind});
  texts_ += text;
}

std::string SentencePieceDecoder::decode(std::span<const std::int32_t> ids) const {
  using Kind = Surface::Kind;
  std::string text, bytes;
  // Most pieces are not longer.
  constexpr std::size_t kPieceBytes = 8;
  text.reserve(ids.size() * kPieceBytes);
  bool at_start = drops_first_mark_, dropped = false;
  for (const std::int32_t id : ids) {
    const Surface& surface = surfaces_[static_cast<std::size_t>(id)];
    std::string_view piece = text_of(surface);
    if (surface.kind == Kind::kByte) {
      bytes += piece;
      continue;
    }
    if (!bytes.empty()) {
      append_characters(bytes, text);
      bytes.clear();
    }
    if (at_start) {
      at_start = text.empty() && !(dropped && keeps_second_mark_);
      dropped = at_start && surface.kind == Kind::kTextBehindMark;
      if (dropped) piece.remove_prefix(1);
    }
    text += piece;
  }
  append_characters(bytes, text);
  if (denormalizer_) return denormalizer_->normalize(text);
  return text;
}

}  // namespace xlate
