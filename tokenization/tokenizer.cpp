#include "tokenization/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Model = sentencepiece::SentencePieceProcessor;

std::shared_ptr<const Model> load(std::string_view bytes, const std::string& name) {
  auto model = std::make_shared<Model>();
  if (const auto status = model->LoadFromSerializedProto(bytes); !status.ok()) fail("{}: not a SentencePiece model: {}", name, status.ToString());
  return model;
}

void check(const sentencepiece::util::Status& status) {
  if (!status.ok()) fail("SentencePiece: {}", status.ToString());
}

// The length of a language token `>>xx<<` at the start of the text, or 0: "xx" is not empty and has no '<'.
std::size_t leading_token(std::string_view text) {
  if (!text.starts_with(">>")) return 0;
  const std::size_t open = text.find('<', 2);
  return open != std::string_view::npos && open > 2 && text.substr(open).starts_with("<<") ? open + 2 : 0;
}

// SentencePiece joins characters that it does not know to one piece, in time that grows with the square of their number: 1 MB of a script
// that a model was not made for took 26 s. So much text is given to it at once, and far fewer characters are a sentence.
constexpr std::size_t kPart = 64 * 1024;

struct Part {
  std::size_t bytes;    // of the text
  std::size_t skipped;  // behind them: the space at which it was cut, which each part gets in front
};

// The first part of a text: up to a space, else up to a character.
Part first_part(std::string_view text) {
  if (text.size() <= kPart) return {text.size(), 0};
  const std::size_t space = text.rfind(' ', kPart);
  if (space != std::string_view::npos && space > kPart / 2) return {space, 1};
  return {without_cut_character(text.substr(0, kPart)).size(), 0};
}

template <class Each>
void each_word(std::string_view text, const Each& each) {
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) return;
    const std::string_view word = text.substr(0, text.find(' '));
    each(word);
    text.remove_prefix(word.size());
  }
}

// A line is a line, whatever pieces a model may hold.
void keep_on_one_line(std::string& text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerFiles& files)
    : source_model_(load(files.source_model, files.name + ": source.spm")),
      target_model_(files.source_model == files.target_model ? source_model_ : load(files.target_model, files.name + ": target.spm")),
      source_(files.source_pieces, files.source_size, Vocabulary::Lookup::kBothWays, files.name + ": source.pieces"),
      target_(files.target_pieces, files.target_size, Vocabulary::Lookup::kByIdOnly, files.name + ": target.pieces"),
      end_(files.end),
      unknown_(files.unknown) {
  ids_of_model_.resize(static_cast<std::size_t>(source_model_->GetPieceSize()));
  for (std::size_t i = 0; i < ids_of_model_.size(); ++i) ids_of_model_[i] = source_id(source_model_->IdToPiece(static_cast<int>(i)));
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  if (const std::size_t length = leading_token(text); length > 0) {
    ids.push_back(source_id(text.substr(0, length)));
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    const Part part = first_part(text);
    encode_part(text.substr(0, part.bytes), ids);
    text.remove_prefix(part.bytes + part.skipped);
  }
  if (!ids.empty()) ids.push_back(end_);
  return ids;
}

void Tokenizer::encode_part(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<int> model_ids;
  check(source_model_->Encode(text, &model_ids));
  if (std::find(model_ids.begin(), model_ids.end(), source_model_->unk_id()) == model_ids.end()) {
    for (const int id : model_ids) ids.push_back(ids_of_model_[static_cast<std::size_t>(id)]);
  } else {
    // What this SentencePiece model does not know can still be a piece of the vocabulary, which both models share.
    std::vector<std::string> pieces;
    check(source_model_->Encode(text, &pieces));
    for (const std::string& piece : pieces) ids.push_back(source_id(piece));
  }
}

std::vector<std::int32_t> Tokenizer::encode_pieces(std::string_view pieces) const {
  std::vector<std::int32_t> ids;
  each_word(pieces, [&](std::string_view piece) { ids.push_back(source_id(piece)); });
  if (!ids.empty()) ids.push_back(end_);
  return ids;
}

std::vector<std::int32_t> Tokenizer::read_ids(std::string_view text) const {
  std::vector<std::int32_t> ids;
  each_word(text, [&](std::string_view word) {
    std::int32_t id = 0;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || rest != word.data() + word.size() || id < 0 || id >= source_.size()) {
      fail("'{}' is not an id, expected a whole number from 0 to {}", word.substr(0, 40), source_.size() - 1);
    }
    ids.push_back(id);
  });
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const std::int32_t id : ids) pieces.emplace_back(target_.piece_of(id));
  std::string text;
  check(target_model_->Decode(pieces, &text));
  keep_on_one_line(text);
  return text;
}

std::string Tokenizer::decode_pieces(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (!text.empty()) text.push_back(' ');
    text.append(target_.piece_of(id));
  }
  keep_on_one_line(text);
  return text;
}

std::string Tokenizer::write_ids(std::span<const std::int32_t> ids) {
  std::string text;
  for (const std::int32_t id : ids) fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : " ", id);
  return text;
}

}  // namespace xlate
