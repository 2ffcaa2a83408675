// Turns lines into source ids, and target ids into lines, by the rules of docs/search.md.
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

std::unique_ptr<const Model> load(std::string_view bytes, const std::string& name) {
  auto model = std::make_unique<Model>();
  if (const auto status = model->LoadFromSerializedProto(bytes); !status.ok())
    fail("{}: not a SentencePiece model: {}", name, status.ToString());
  return model;
}

void check(const sentencepiece::util::Status& status) {
  if (!status.ok()) fail("SentencePiece: {}", status.ToString());
}

// Returns the bytes of a language token >>xx<< at the start of the text, whatever is between the
// angle brackets, or 0 if there is none.
std::size_t leading_token(std::string_view text) {
  const std::size_t end = text.starts_with(">>") ? text.find("<<") : std::string_view::npos;
  return end == std::string_view::npos ? 0 : end + 2;
}

// Calls each(word) for the words of a text that is separated by spaces (U+0020).
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

// In pieces this mark is a space.
constexpr std::string_view kMark = "\u2581";
// The library writes this, between spaces, for the unknown piece.
constexpr std::string_view kUnknown = "\u2047";

// A piece may hold line breaks. They become spaces, so that each line of input gives one line of
// output.
void keep_on_one_line(std::string& text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Takes spaces out of English text as Hugging Face's clean_up_tokenization does, in the same order.
void clean_up(std::string& text) {
  for (const std::string_view mark : {".", "?", "!", ","})
    replace_all(text, " " + std::string(mark), mark);
  replace_all(text, " ' ", "'");
  for (const std::string_view ending : {"n't", "'m", "'s", "'ve", "'re"})
    replace_all(text, " " + std::string(ending), ending);
}

// Returns the text without white space at its ends. One space stays beside an unknown token, which
// the library writes between spaces.
std::string trimmed(std::string_view text) {
  const std::string_view rest = without_leading_space(text), inside = without_trailing_space(rest);
  std::string result(inside);
  if (inside.starts_with(kUnknown) && rest.size() < text.size()) result.insert(0, " ");
  if (inside.ends_with(kUnknown) && inside.size() < rest.size()) result += ' ';
  return result;
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerFiles& files)
    : source_(files.source_pieces, files.source_size, Vocabulary::Lookup::kBothWays,
              files.name + ": source.pieces"),
      target_(files.target_pieces, files.target_size, Vocabulary::Lookup::kByIdOnly,
              files.name + ": target.pieces"),
      clean_up_spaces_(files.clean_up_spaces),
      end_(files.end),
      unknown_(files.unknown) {
  const auto is_both = [&](std::int32_t id) {
    return id < target_.size() && target_.piece_of(id) == source_.piece_of(id);
  };
  silent_.insert(files.pad);
  if (is_both(end_)) silent_.insert(end_);
  std::vector<std::string_view> texts;
  for (const AddedToken& token : files.added) {
    const std::string_view text = source_.piece_of(token.id);
    if (text.empty()) fail("{}: added token {} has no piece", files.name, token.id);
    texts.push_back(text);
    source_.prefer(token.id);
    if (token.special && is_both(token.id)) silent_.insert(token.id);
  }
  added_ = AddedTokens(files.added, texts);
  if (files.target_model) target_model_ = load(*files.target_model, files.name + ": target.spm");
  if (!files.source_model) return;
  segmenter_.emplace(*files.source_model, files.name + ": source.spm");
  for (const std::string_view piece : segmenter_->pieces())
    ids_of_model_.push_back(source_id(piece));
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  if (added_.empty()) {
    append_text(text, true, ids);
  } else {
    bool first = true;
    for (const AddedTokens::Stretch& stretch : added_.split(text)) {
      if (stretch.id >= 0)
        ids.push_back(stretch.id);
      else
        append_text(stretch.text, first, ids);
      first = false;
    }
  }
  if (!ids.empty()) ids.push_back(end_);
  return ids;
}

// Appends the ids of text without added tokens. A language token counts only at the start of the
// line.
void Tokenizer::append_text(std::string_view text, bool at_start,
                            std::vector<std::int32_t>& ids) const {
  if (const std::size_t length = at_start ? leading_token(text) : 0; length > 0) {
    ids.push_back(source_id(text.substr(0, length)));
    text.remove_prefix(length);
  }
  append_segments(text, ids);
}

// Appends the ids of text that is segmented. Text that the source's model does not know is looked
// up in the vocabulary, which may have more pieces than the model: a shared vocabulary has those of
// the target's model too.
void Tokenizer::append_segments(std::string_view text, std::vector<std::int32_t>& ids) const {
  const Segmentation segments = segmenter_->segment(text);
  auto unknown = segments.unknown.begin();
  for (const int id : segments.ids) {
    ids.push_back(id == segmenter_->unknown() ? source_id(*unknown++)
                                              : ids_of_model_[static_cast<std::size_t>(id)]);
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
    if (error != std::errc() || rest != word.data() + word.size() || id < 0 ||
        id >= source_.size()) {
      fail("'{}' is not an id, expected a whole number from 0 to {}", word.substr(0, 40),
           source_.size() - 1);
    }
    ids.push_back(id);
  });
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (!silent_.contains(id)) pieces.emplace_back(target_.piece_of(id));
  }
  std::string text;
  check(target_model_->Decode(pieces, &text));
  // The library leaves the marks in pieces that the target's model does not have. A shared
  // vocabulary has such pieces, which are the source's.
  replace_all(text, kMark, " ");
  keep_on_one_line(text);
  text = trimmed(text);
  if (clean_up_spaces_) clean_up(text);
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
  for (const std::int32_t id : ids)
    fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : " ", id);
  return text;
}

}  // namespace xlate
