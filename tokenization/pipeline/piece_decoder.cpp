// Applies the steps of decoding one after another.
#include "tokenization/pipeline/piece_decoder.h"

#include <string_view>

#include "tokenization/byte_piece.h"
#include "tokenization/growth_limit.h"
#include "tokenization/pipeline/pieces.h"
#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Kind = DecodeStep::Kind;
using Texts = std::vector<std::string>;

void decode_metaspace(Prepend prepend, Texts& pieces) {
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const bool drops = i == 0 && prepend != Prepend::kNever;
    replace_all(pieces[i], kMark, drops ? "" : " ");
  }
}

void join(Texts& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  pieces = {std::move(text)};
}

// All bytes of the text are joined before UTF-8 is checked, because a character may be spread over
// several pieces.
void decode_bytes(Texts& pieces) {
  std::string text;
  for (const std::string& piece : pieces) append_bytes_of(piece, text);
  make_valid_utf8(text);
  pieces = {std::move(text)};
}

// Neighbouring byte pieces become their text if that is valid UTF-8, and otherwise one U+FFFD for
// each of them.
void decode_byte_pieces(Texts& pieces) {
  Texts out;
  std::string bytes;
  const auto flush = [&] {
    std::string text = bytes;
    if (make_valid_utf8(text)) {
      out.insert(out.end(), bytes.size(), std::string(kReplacement));
    } else if (!text.empty()) {
      out.push_back(std::move(text));
    }
    bytes.clear();
  };
  for (std::string& piece : pieces) {
    if (const int byte = byte_of_piece(piece); byte >= 0) {
      bytes += static_cast<char>(byte);
      continue;
    }
    flush();
    out.push_back(std::move(piece));
  }
  flush();
  pieces = std::move(out);
}

std::size_t bytes_of(const Texts& pieces) {
  std::size_t bytes = 0;
  for (const std::string& piece : pieces) bytes += piece.size();
  return bytes;
}

void replace(const DecodeStep& step, const GrowthLimit& limit, Texts& pieces) {
  std::size_t bytes = 0;
  for (std::string& piece : pieces) {
    limit.check(bytes + bytes_replaced(piece, step.text, step.with));
    replace_all(piece, step.text, step.with);
    bytes += piece.size();
  }
}

void strip(const DecodeStep& step, Texts& pieces) {
  for (std::string& piece : pieces) {
    std::string_view text = piece;
    for (std::int64_t i = 0; i < step.left && text.starts_with(step.text); ++i)
      text.remove_prefix(step.text.size());
    for (std::int64_t i = 0; i < step.right && text.ends_with(step.text); ++i)
      text.remove_suffix(step.text.size());
    piece = std::string(text);
  }
}

}  // namespace

std::string PieceDecoder::decode(Texts pieces) const {
  const GrowthLimit limit(bytes_of(pieces), name_);
  for (const DecodeStep& step : steps_) {
    switch (step.kind) {
      case Kind::kMetaspace:
        decode_metaspace(step.prepend, pieces);
        break;
      case Kind::kByteLevel:
        decode_bytes(pieces);
        break;
      case Kind::kReplace:
        replace(step, limit, pieces);
        break;
      case Kind::kByteFallback:
        decode_byte_pieces(pieces);
        break;
      case Kind::kFuse:
        join(pieces);
        break;
      case Kind::kStrip:
        strip(step, pieces);
        break;
    }
  }
  std::string text;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (steps_.empty() && i > 0) text += ' ';
    text += pieces[i];
  }
  return text;
}

}  // namespace xlate
