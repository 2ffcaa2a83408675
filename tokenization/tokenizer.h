// Text to source ids and target ids to text: SentencePiece and the vocabularies of a model. All
// that knows SentencePiece.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "tokenization/added_tokens.h"
#include "tokenization/segmenter.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// A model's tokenizer files, which must outlive the tokenizer, and the ids that it needs to know.
struct TokenizerFiles {
  std::string name;  // of the model file, for errors
  std::optional<std::string_view> source_model,
      target_model;  // serialized SentencePiece models; without, no text is read or written
  std::string_view source_pieces, target_pieces;  // tables of the vocabularies
  std::int64_t source_size = 0, target_size = 0;  // rows of the embeddings
  std::int32_t end = 0, unknown = 0;
  std::int32_t pad = -1;  // of the target; −1: none
  std::vector<AddedToken> added;
  bool clean_up_spaces = false;  // of decoded text: Hugging Face's clean_up_tokenization_spaces
};

/// Const functions may be called from several threads at once.
class Tokenizer {
 public:
  /// Throws Error where a file cannot be read or does not fit the model.
  explicit Tokenizer(const TokenizerFiles&);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Whether there are models to read and write text with; else encode() and decode() must not be
  /// called.
  bool has_text() const { return segmenter_.has_value() && target_model_; }

  /// Valid UTF-8 to ids, end token included; none where the text normalises to nothing. Added
  /// tokens are looked up whole, and so is a language token in front, from >> to the first <<; the
  /// text between them is segmented stretch by stretch.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// Pieces separated by spaces to ids, end token included; a piece that is not in the vocabulary
  /// is the unknown token.
  std::vector<std::int32_t> encode_pieces(std::string_view pieces) const;
  /// Ids separated by spaces, taken as they are. Throws Error naming what is not an id of the
  /// source vocabulary.
  std::vector<std::int32_t> read_ids(std::string_view text) const;

  /// Ids without start and end token to text on one line: pieces put together, marks (U+2581) made
  /// spaces, no white space at the ends but that of an unknown token (" ⁇ "), special added tokens
  /// left out.
  std::string decode(std::span<const std::int32_t> ids) const;
  /// The same as pieces, or as numbers, separated by spaces.
  std::string decode_pieces(std::span<const std::int32_t> ids) const;
  static std::string write_ids(std::span<const std::int32_t> ids);

 private:
  void append_text(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;
  void append_segments(std::string_view text, std::vector<std::int32_t>& ids) const;
  std::int32_t source_id(std::string_view piece) const {
    return source_.id_of(piece).value_or(unknown_);
  }

  std::optional<Segmenter> segmenter_;
  std::unique_ptr<const sentencepiece::SentencePieceProcessor> target_model_;
  Vocabulary source_, target_;
  AddedTokens added_;
  std::unordered_set<std::int32_t> silent_;  // target ids that are no text
  bool clean_up_spaces_;
  std::int32_t end_, unknown_;
  std::vector<std::int32_t> ids_of_model_;  // vocabulary id of each of the source model's pieces
};

}  // namespace xlate
