// Finds the byte pieces of a model.
#include "tokenization/sentencepiece/unknown_text.h"

#include <algorithm>

#include "engine/error.h"
#include "tokenization/byte_piece.h"

namespace xlate {

UnknownText::UnknownText(const SentencePieceModel& model, const std::string& name)
    : unknown_(model.unknown), byte_fallback_(model.byte_fallback) {
  bytes_.fill(-1);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type != SentencePieceModel::Type::kByte) continue;
    bytes_[static_cast<std::size_t>(byte_of_piece(piece.text))] = static_cast<std::int32_t>(id);
  }
  if (byte_fallback_ && std::find(bytes_.begin(), bytes_.end(), -1) != bytes_.end())
    fail("{}: a byte has no piece", name);
}

void UnknownText::append(std::string_view text, bool continued, Segmentation& out) const {
  if (byte_fallback_) {
    for (const char byte : text) out.ids.push_back(bytes_[static_cast<unsigned char>(byte)]);
  } else if (continued) {
    out.unknown.back() += text;
  } else {
    out.ids.push_back(unknown_);
    out.unknown.emplace_back(text);
  }
}

}  // namespace xlate
