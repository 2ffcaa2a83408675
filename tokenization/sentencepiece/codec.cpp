// Makes ids by the SentencePiece model and the vocabulary of a side, and text by those of the
// target.
#include "tokenization/sentencepiece/codec.h"

#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Models write this, between spaces, for the unknown piece.
constexpr std::string_view kUnknown = "\u2047";

SentencePieceDecoder decoder_of(const SentencePieceCodec::Files& files, const Vocabulary& target) {
  const std::string name = files.name + ": target.spm";
  return {SentencePieceModel::read(files.target_model, name), target, name};
}

// Returns the text without white space at its ends. One space stays beside an unknown token, which
// models write between spaces.
std::string trimmed(std::string_view text) {
  const std::string_view rest = without_leading_space(text), inside = without_trailing_space(rest);
  std::string result(inside);
  if (inside.starts_with(kUnknown) && rest.size() < text.size()) result.insert(0, " ");
  if (inside.ends_with(kUnknown) && inside.size() < rest.size()) result += ' ';
  return result;
}

}  // namespace

SentencePieceCodec::SentencePieceCodec(const Files& files, const Vocabulary& source,
                                       const Vocabulary& target, AddedTokens added)
    : source_(source),
      target_(target),
      encoder_(files.source_model, files.name + ": source.spm", source, files.unknown),
      decoder_(decoder_of(files, target)),
      added_(std::move(added)),
      leading_language_token_(files.leading_language_token) {
  if (files.target_unknown)
    target_encoder_.emplace(files.target_model, files.name + ": target.spm", target,
                            *files.target_unknown);
}

std::vector<std::int32_t> SentencePieceCodec::encode(std::string_view line) const {
  std::vector<std::int32_t> ids;
  if (added_.empty()) {
    append_text(line, true, ids);
    return ids;
  }
  bool first = true;
  for (const AddedTokens::Stretch& stretch : added_.split(line)) {
    if (stretch.id >= 0)
      ids.push_back(stretch.id);
    else
      append_text(stretch.text, first, ids);
    first = false;
  }
  return ids;
}

// A language token is >>xx<<, whatever is between the angle brackets.
std::size_t SentencePieceCodec::language_token_bytes(std::string_view line) const {
  if (!leading_language_token_ || !line.starts_with(">>")) return 0;
  const std::size_t end = line.find("<<");
  return end == std::string_view::npos ? 0 : end + 2;
}

// Appends the ids of text without added tokens. A language token counts only at the start of the
// line.
void SentencePieceCodec::append_text(std::string_view text, bool at_start,
                                     std::vector<std::int32_t>& ids) const {
  if (const std::size_t length = at_start ? language_token_bytes(text) : 0; length > 0) {
    ids.push_back(encoder_.id_of(text.substr(0, length)));
    text.remove_prefix(length);
  }
  encoder_.append(text, ids);
}

// The added tokens are the source's. One that the target vocabulary does not have is text there.
std::vector<std::int32_t> SentencePieceCodec::encode_target(std::string_view text) const {
  std::vector<std::int32_t> ids;
  if (added_.empty()) {
    target_encoder_->append(text, ids);
    return ids;
  }
  for (const AddedTokens::Stretch& stretch : added_.split(text)) {
    const std::string_view piece =
        stretch.id < 0 ? std::string_view(stretch.text) : source_.piece_of(stretch.id);
    const std::optional<std::int32_t> id = stretch.id < 0 ? std::nullopt : target_.id_of(piece);
    if (id)
      ids.push_back(*id);
    else
      target_encoder_->append(piece, ids);
  }
  return ids;
}

// White space at the ends of the text is dropped.
std::string SentencePieceCodec::decode(std::span<const std::int32_t> ids) const {
  std::string text = decoder_.decode(ids);
  // There may be marks in pieces that the target's model does not have. A shared vocabulary has
  // such pieces, which are the source's.
  replace_all(text, kMark, " ");
  return trimmed(text);
}

}  // namespace xlate
