// Turns text into source ids and target ids into text, by the tokenizer and the vocabularies of a
// model file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/added_token.h"
#include "tokenization/chat.h"
#include "tokenization/marked_text.h"
#include "tokenization/pipeline/description.h"
#include "tokenization/text_codec.h"
#include "tokenization/text_range.h"
#include "tokenization/vocabulary.h"

namespace xlate {

class PipelineCodec;

/// Lists the source ids that stand before and after those of a line.
struct Template {
  /// Stands for the token of the source's language.
  static constexpr std::int32_t kSourceLanguage = -1;
  std::vector<std::int32_t> before, after;
  bool has_source_language() const;
};

/// Says how decoded text becomes a line of output.
struct LineRules {
  // It takes the place of every newline, and may be a newline itself. A CR becomes a space in any
  // case.
  std::string_view newline = " ";
  // The text ends before the first place where one of these texts begins. None of them is empty.
  std::span<const std::string> stops{};
  // So many ids are those of a prompt, in whose text no stop is looked for.
  std::size_t prompt_ids = 0;
};

/// Holds a model's tokenizer files, whose bytes must outlive the tokenizer, and the ids that it
/// needs to know.
struct TokenizerFiles {
  // Messages call the model file by this name.
  std::string name;
  // These are serialized SentencePiece models. Text is read and written by both of them, or by the
  // pipeline. Without either, no text is read or written.
  std::optional<std::string_view> source_model, target_model;
  std::optional<PipelineDescription> pipeline;
  // These are tables of the pipeline (PipelineCodec::Files).
  std::string_view charsmap, scores, merges;
  // These are the tables of the vocabularies (tokenization/vocabulary.h).
  std::string_view source_pieces, target_pieces;
  // The embeddings have this many rows, and the vocabularies must have this many entries.
  std::int64_t source_size = 0, target_size = 0;
  // These are source ids: the end token, where −1 means that there is none, and the token for a
  // piece that is not in the vocabulary.
  std::int32_t end = 0, unknown = 0;
  // This is a target id; −1 means that there is none.
  std::int32_t pad = -1;
  std::vector<AddedToken> added;
  // These ids of both vocabularies are the tokens of languages, by code. They are no text in the
  // output.
  std::map<std::string, std::int32_t> languages;
  Template around;
  // It makes prompts of conversations. Only a pipeline has one.
  std::optional<ChatTemplate> chat;
  // A line may begin with a language token >>xx<< (Marian).
  bool leading_language_token = false;
  // Cleans up decoded text (Hugging Face's clean_up_tokenization_spaces).
  bool clean_up_spaces = false;
  // Targets are read, too, which takes more memory.
  bool reads_targets = false;
};

/// Gives a line the ids that the tokenizer of the checkpoint gives it in transformers 5, with the
/// differences that docs/search.md lists. Const functions may be called from several threads at
/// once.
class Tokenizer {
 public:
  /// Reads the files. Throws Error if one cannot be read or does not fit the model, or if an added
  /// token has no piece in valid UTF-8.
  explicit Tokenizer(const TokenizerFiles&);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Returns whether text can be read and written. Otherwise encode() and decode() must not be
  /// called.
  bool has_text() const { return codec_ != nullptr; }
  /// Returns the ids of the language tokens by their codes.
  const std::map<std::string, std::int32_t>& languages() const { return languages_; }
  /// Returns the id of a language token by its code, or −1 if there is none.
  std::int32_t language_id(const std::string& code) const {
    const auto found = languages_.find(code);
    return found == languages_.end() ? -1 : found->second;
  }

  /// Returns the chat template, if the model has one.
  const std::optional<ChatTemplate>& chat() const { return chat_; }

  /// Returns how many tokens encode() puts behind those of a line.
  std::size_t closing_tokens() const { return around_.after.size(); }

  /// Returns the source ids of a line in valid UTF-8, inside the template, or none at all if
  /// nothing is left of the line after normalization. Added tokens are looked up whole. The
  /// stretches of text between them are each tokenized separately. `source_language` is the source
  /// id of a language token, or −1 if the template has none.
  std::vector<std::int32_t> encode(std::string_view text, std::int32_t source_language = -1) const;
  /// Returns the bytes of a language token >>xx<< that a line begins with, or 0 if it begins with
  /// none.
  std::size_t language_token_bytes(std::string_view line) const {
    return codec_->language_token_bytes(line);
  }
  /// Returns whether encode() takes a MarkedText. The tokenizers of SentencePiece models do not.
  bool has_special_tokens() const { return pipeline_ != nullptr; }
  /// Returns the source ids of a text as a whole, as encode() does for a line. The template has no
  /// token of a language, and is left out where the text is complete.
  std::vector<std::int32_t> encode(const MarkedText&) const;
  /// Returns the source ids of pieces separated by spaces, with the end token, or none at all if
  /// there are no pieces. A piece that is not in the vocabulary becomes the unknown token.
  std::vector<std::int32_t> encode_pieces(std::string_view pieces) const;
  /// Returns source ids that are written as numbers separated by spaces. No end token is appended.
  /// Throws Error that names the first word which is no id of the source vocabulary.
  std::vector<std::int32_t> read_ids(std::string_view text) const;

  /// Returns the number of the word of each id that encode() gives a line, where words are what
  /// stands between spaces. It is −1 for tokens of the template, and for spaces behind the last
  /// word.
  std::vector<std::int32_t> source_words(std::string_view text) const;
  /// Returns the same of the target ids of which decode() makes a text by these rules. It is −1 for
  /// tokens that are no text, and that a stop has cut off.
  std::vector<std::int32_t> target_words(std::span<const std::int32_t> ids,
                                         const LineRules& = {}) const;

  /// Returns the bytes of a line that each id which encode() gives it stands for. The range is
  /// empty for tokens of the template, and for spaces. Where pieces are not the characters of the
  /// line, because these were normalized, a token has all the rest of its word.
  std::vector<TextRange> source_ranges(std::string_view text) const;
  /// Returns the bytes that each of the target ids adds to the text that decode() makes of them by
  /// these rules, without white space before them. A token that adds nothing by itself has what the
  /// next one adds.
  std::vector<TextRange> target_ranges(std::span<const std::int32_t> ids,
                                       const LineRules& = {}) const;

  // The following functions for targets need TokenizerFiles::reads_targets.
  /// Returns the target ids of a text in valid UTF-8, without a template and an end token. They are
  /// those that the tokenizer of the checkpoint gives a target. Needs has_text().
  std::vector<std::int32_t> encode_target(std::string_view text) const;
  /// Returns the ids of a text that continues a prompt, without an end token: those that the
  /// tokenizer gives both together behind the ids of the prompt, or where it gives these other ids,
  /// the ids of the text by itself. Needs has_special_tokens().
  std::vector<std::int32_t> encode_continuation(const MarkedText& prompt,
                                                std::string_view text) const;
  /// Returns the target ids of pieces separated by spaces, without an end token. A piece that is
  /// not in the vocabulary becomes the unknown token. Throws Error that names it if there is no
  /// unknown token.
  std::vector<std::int32_t> encode_target_pieces(std::string_view pieces) const;
  /// Returns target ids that are written as numbers separated by spaces. Throws Error that names
  /// the first word which is no id of the target vocabulary.
  std::vector<std::int32_t> read_target_ids(std::string_view text) const;
  /// Returns the target id of a piece, or nothing if it has none.
  std::optional<std::int32_t> target_id_of(std::string_view piece) const {
    return target_->id_of(piece);
  }
  /// Returns the target id for text that has no piece, or nothing if the tokenizer has pieces for
  /// all text.
  std::optional<std::int32_t> target_unknown() const { return target_unknown_; }

  /// Returns the text of target ids in valid UTF-8, on one line unless the rules keep newlines.
  /// Padding, end tokens, language tokens, special added tokens and those of the template are left
  /// out. An unknown token is written as " ⁇ ". White space at the ends is dropped if the tokenizer
  /// has SentencePiece models. Spaces before English punctuation are taken out if
  /// TokenizerFiles::clean_up_spaces says so. Throws Error if a step of a pipeline, or
  /// denormalization, makes the text much longer.
  std::string decode(std::span<const std::int32_t> ids, const LineRules& = {}) const;
  /// Returns the pieces of target ids in valid UTF-8, separated by spaces. All ids are written,
  /// and line breaks in pieces are replaced.
  std::string decode_pieces(std::span<const std::int32_t> ids, const LineRules& = {}) const;
  /// Returns ids as numbers, separated by spaces.
  static std::string write_ids(std::span<const std::int32_t> ids);

 private:
  /// Returns the text of target ids without those that are no text, in valid UTF-8. It may have
  /// line breaks.
  std::string text_of(std::span<const std::int32_t> ids) const;
  /// Puts the template around the ids of a text, unless there are none.
  std::vector<std::int32_t> with_template(std::vector<std::int32_t> line,
                                          std::int32_t source_language) const;
  /// Returns the source id of a piece, or the unknown token's if it has none.
  std::int32_t source_id(std::string_view piece) const {
    return source_->id_of(piece).value_or(unknown_);
  }

  // The codec refers to the vocabularies, which must stay where they are.
  std::unique_ptr<Vocabulary> source_, target_;
  std::unique_ptr<const TextCodec> codec_;
  // This is the codec if it is a pipeline, and null otherwise.
  const PipelineCodec* pipeline_ = nullptr;
  Template around_;
  std::optional<ChatTemplate> chat_;
  std::map<std::string, std::int32_t> languages_;
  // Says of each target id whether it is no text: the padding, the tokens of languages, and the
  // tokens of the template, the end token and the special added tokens, if both vocabularies have
  // the same piece under their id.
  std::vector<bool> is_silent_;
  bool clean_up_spaces_;
  std::int32_t end_, unknown_;
  std::optional<std::int32_t> target_unknown_;
};

}  // namespace xlate
