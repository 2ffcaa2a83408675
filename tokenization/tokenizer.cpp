// Chooses the codec of a model file's tokenizer, and puts the template around what it gives.
#include "tokenization/tokenizer.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "engine/error.h"
#include "tokenization/pipeline/codec.h"
#include "tokenization/sentencepiece/codec.h"
#include "tokenization/text_edits.h"
#include "tokenization/token_words.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

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

// Reads a number as an id below `size`. Throws Error if the word is anything else.
std::int32_t read_id(std::string_view word, std::int64_t size) {
  std::int32_t id = 0;
  const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (error != std::errc() || rest != word.data() + word.size() || id < 0 || id >= size) {
    fail("'{}' is not an id, expected a whole number from 0 to {}", brief_text(word), size - 1);
  }
  return id;
}

// Returns the target id for text without a piece, if there is one. The header of a model names
// another token where a pipeline has no unknown one.
std::optional<std::int32_t> target_unknown_of(const TokenizerFiles& files, const Vocabulary& source,
                                              const Vocabulary& target) {
  if (files.pipeline ? files.pipeline->model.unknown < 0 : !files.target_model) return std::nullopt;
  return target.id_of(source.piece_of(files.unknown));
}

std::unique_ptr<const TextCodec> codec_of(const TokenizerFiles& files, const Vocabulary& source,
                                          const Vocabulary& target,
                                          std::optional<std::int32_t> target_unknown,
                                          const std::vector<std::string_view>& added_texts) {
  if (files.pipeline) {
    return std::make_unique<const PipelineCodec>(*files.pipeline,
                                                 PipelineCodec::Files{.charsmap = files.charsmap,
                                                                      .scores = files.scores,
                                                                      .merges = files.merges,
                                                                      .name = files.name,
                                                                      .unknown = files.unknown},
                                                 source, files.added);
  }
  if (!files.source_model || !files.target_model) return nullptr;
  return std::make_unique<const SentencePieceCodec>(
      SentencePieceCodec::Files{.source_model = *files.source_model,
                                .target_model = *files.target_model,
                                .name = files.name,
                                .unknown = files.unknown,
                                .target_unknown = target_unknown,
                                .leading_language_token = files.leading_language_token},
      source, target, AddedTokens(files.added, added_texts));
}

}  // namespace

bool Template::has_source_language() const {
  const auto is_in = [](const std::vector<std::int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), kSourceLanguage) != ids.end();
  };
  return is_in(before) || is_in(after);
}

Tokenizer::Tokenizer(const TokenizerFiles& files)
    : source_(std::make_unique<Vocabulary>(files.source_pieces, files.source_size,
                                           Vocabulary::Lookup::kBothWays,
                                           files.name + ": source.pieces")),
      target_(std::make_unique<Vocabulary>(
          files.target_pieces, files.target_size,
          files.reads_targets ? Vocabulary::Lookup::kBothWays : Vocabulary::Lookup::kByIdOnly,
          files.name + ": target.pieces")),
      around_(files.around),
      chat_(files.chat),
      languages_(files.languages),
      clean_up_spaces_(files.clean_up_spaces),
      end_(files.end),
      unknown_(files.unknown) {
  // There is one vocabulary of a pipeline.
  if (files.pipeline && files.source_size != files.target_size) {
    fail("{}: the vocabularies have {} and {} entries, expected equal numbers for one tokenizer",
         files.name, files.source_size, files.target_size);
  }
  const auto is_both = [&](std::int32_t id) {
    return id < target_->size() && target_->piece_of(id) == source_->piece_of(id);
  };
  is_silent_.resize(static_cast<std::size_t>(target_->size()));
  const auto silence = [&](std::int32_t id) {
    if (id >= 0 && id < target_->size()) is_silent_[static_cast<std::size_t>(id)] = true;
  };
  silence(files.pad);
  for (const auto& [code, id] : files.languages) silence(id);
  // OPT puts its unknown token before a text, where it is no unknown text.
  for (const auto& ids : {files.around.before, files.around.after}) {
    for (const std::int32_t id : ids) {
      if (id >= 0 && is_both(id)) silence(id);
    }
  }
  if (end_ >= 0 && is_both(end_)) silence(end_);
  std::vector<std::string_view> texts;
  for (const AddedToken& token : files.added) {
    const std::string_view text = source_->piece_of(token.id);
    if (text.empty()) fail("{}: added token {} has no piece", files.name, token.id);
    // What is between added tokens must remain valid.
    if (std::string copy(text); make_valid_utf8(copy))
      fail("{}: added token {} is '{}', expected valid UTF-8", files.name, token.id, copy);
    texts.push_back(text);
    source_->prefer(token.id);
    if (files.reads_targets && is_both(token.id)) target_->prefer(token.id);
    if (token.special && token.id != unknown_ && is_both(token.id)) silence(token.id);
  }
  if (files.reads_targets) {
    target_unknown_ = target_unknown_of(files, *source_, *target_);
    if (files.target_model && !files.pipeline && !target_unknown_)
      fail("{}: target.pieces has no piece '{}'", files.name, source_->piece_of(unknown_));
  }
  codec_ = codec_of(files, *source_, *target_, target_unknown_, texts);
  if (files.pipeline) pipeline_ = static_cast<const PipelineCodec*>(codec_.get());
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text,
                                            std::int32_t source_language) const {
  return with_template(codec_->encode(text), source_language);
}

std::vector<std::int32_t> Tokenizer::encode(const MarkedText& text) const {
  std::vector<std::int32_t> ids = pipeline_->encode(text.text, text.special);
  return text.complete ? ids : with_template(std::move(ids), -1);
}

std::vector<std::int32_t> Tokenizer::with_template(std::vector<std::int32_t> line,
                                                   std::int32_t source_language) const {
  if (line.empty()) return line;
  std::vector<std::int32_t> ids;
  const auto append = [&](const std::vector<std::int32_t>& items) {
    for (const std::int32_t id : items)
      ids.push_back(id == Template::kSourceLanguage ? source_language : id);
  };
  ids.reserve(around_.before.size() + line.size() + around_.after.size());
  append(around_.before);
  ids.insert(ids.end(), line.begin(), line.end());
  append(around_.after);
  return ids;
}

std::vector<std::int32_t> Tokenizer::source_words(std::string_view text) const {
  const std::vector<std::int32_t> line = codec_->encode(text);
  if (line.empty()) return {};
  std::vector<std::int32_t> words = words_of_source(text, line, *codec_, *source_);
  words.insert(words.begin(), around_.before.size(), -1);
  words.insert(words.end(), around_.after.size(), -1);
  return words;
}

// A token belongs to the last word of the text that ends with it. One that adds nothing to the text
// is a space before the next word, or no text.
std::vector<std::int32_t> Tokenizer::target_words(std::span<const std::int32_t> ids,
                                                  const LineRules& rules) const {
  const std::int32_t count = count_words(decode(ids, rules));
  std::vector<std::int32_t> words(ids.size(), -1);
  std::string before;
  std::size_t first = 0;  // the first token behind the last one that has added text
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::string text = decode(ids.first(i + 1));
    if (text == before) continue;
    const std::int32_t word = count_words(text) - 1;
    for (; first <= i; ++first) {
      if (!is_silent_[static_cast<std::size_t>(ids[first])] && word < count) words[first] = word;
    }
    before = std::move(text);
  }
  return words;
}

std::vector<TextRange> Tokenizer::source_ranges(std::string_view text) const {
  const std::vector<std::int32_t> line = codec_->encode(text);
  if (line.empty()) return {};
  std::vector<TextRange> ranges = ranges_of_source(text, line, *codec_, *source_);
  ranges.insert(ranges.begin(), around_.before.size(), TextRange{});
  ranges.insert(ranges.end(), around_.after.size(), TextRange{});
  return ranges;
}

std::vector<TextRange> Tokenizer::target_ranges(std::span<const std::int32_t> ids,
                                                const LineRules& rules) const {
  const std::string whole = decode(ids, rules);
  std::vector<TextRange> ranges(ids.size());
  std::size_t first = 0, end = 0;  // the tokens before, and the bytes that they have added
  for (std::size_t i = 0; i < ids.size(); ++i) {
    // The end of a text that is not complete yet may become another one.
    const std::string text = i + 1 < ids.size() ? decode(ids.first(i + 1), rules) : whole;
    const auto same = std::mismatch(text.begin(), text.end(), whole.begin(), whole.end());
    const auto now = static_cast<std::size_t>(same.first - text.begin());
    if (now <= end) continue;
    const std::string_view added = std::string_view(whole).substr(end, now - end);
    const std::string_view behind_space = without_leading_space(added);
    if (!behind_space.empty()) {
      for (; first <= i; ++first) {
        if (!is_silent_[static_cast<std::size_t>(ids[first])])
          ranges[first] = {now - behind_space.size(), now};
      }
    }
    end = now;
  }
  return ranges;
}

std::vector<std::int32_t> Tokenizer::encode_pieces(std::string_view pieces) const {
  std::vector<std::int32_t> ids;
  each_word(pieces, [&](std::string_view piece) { ids.push_back(source_id(piece)); });
  if (!ids.empty() && end_ >= 0) ids.push_back(end_);
  return ids;
}

std::vector<std::int32_t> Tokenizer::read_ids(std::string_view text) const {
  std::vector<std::int32_t> ids;
  each_word(text, [&](std::string_view word) { ids.push_back(read_id(word, source_->size())); });
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_target(std::string_view text) const {
  return codec_->encode_target(text);
}

std::vector<std::int32_t> Tokenizer::encode_continuation(const MarkedText& prompt,
                                                         std::string_view text) const {
  const std::vector<std::int32_t> before = pipeline_->encode(prompt.text, prompt.special);
  std::vector<std::int32_t> ids =
      pipeline_->encode(prompt.text + std::string(text), prompt.special);
  const auto [end, rest] = std::mismatch(before.begin(), before.end(), ids.begin(), ids.end());
  if (end != before.end()) return pipeline_->encode(text);
  ids.erase(ids.begin(), rest);
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_target_pieces(std::string_view pieces) const {
  std::vector<std::int32_t> ids;
  each_word(pieces, [&](std::string_view piece) {
    const auto id = target_->id_of(piece);
    if (!id && !target_unknown_)
      fail("'{}' is no piece of the target vocabulary", brief_text(piece));
    ids.push_back(id ? *id : *target_unknown_);
  });
  return ids;
}

std::vector<std::int32_t> Tokenizer::read_target_ids(std::string_view text) const {
  std::vector<std::int32_t> ids;
  each_word(text, [&](std::string_view word) { ids.push_back(read_id(word, target_->size())); });
  return ids;
}

std::string Tokenizer::text_of(std::span<const std::int32_t> ids) const {
  std::vector<std::int32_t> text_ids;
  text_ids.reserve(ids.size());
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(text_ids),
               [&](std::int32_t id) { return !is_silent_[static_cast<std::size_t>(id)]; });
  std::string text = codec_->decode(text_ids);
  // Pieces of a damaged file need not be valid.
  make_valid_utf8(text);
  return text;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, const LineRules& rules) const {
  std::string text = text_of(ids);
  if (!rules.stops.empty()) {
    const std::string prompt = text_of(ids.first(rules.prompt_ids));
    const auto behind = std::mismatch(prompt.begin(), prompt.end(), text.begin(), text.end());
    end_before(text, static_cast<std::size_t>(behind.second - text.begin()), rules.stops);
  }
  keep_on_one_line(text, rules.newline);
  if (clean_up_spaces_) clean_up(text);
  return text;
}

std::string Tokenizer::decode_pieces(std::span<const std::int32_t> ids,
                                     const LineRules& rules) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (!text.empty()) text.push_back(' ');
    text.append(target_->piece_of(id));
  }
  make_valid_utf8(text);
  keep_on_one_line(text, rules.newline);
  return text;
}

std::string Tokenizer::write_ids(std::span<const std::int32_t> ids) {
  std::string text;
  for (const std::int32_t id : ids)
    fmt::format_to(std::back_inserter(text), "{}{}", text.empty() ? "" : " ", id);
  return text;
}

}  // namespace xlate
