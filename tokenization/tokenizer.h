// Text to source ids and target ids to text: SentencePiece and the vocabularies of a model. All that knows SentencePiece.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/vocabulary.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace xlate {

/// A model's tokenizer files, which must outlive the tokenizer, and the ids that it needs to know.
struct TokenizerFiles {
  std::string name;  // of the model file, for errors
  std::string_view source_model, target_model;    // serialized SentencePiece models
  std::string_view source_pieces, target_pieces;  // tables of the vocabularies
  std::int64_t source_size = 0, target_size = 0;  // rows of the embeddings
  std::int32_t end = 0, unknown = 0;
};

/// Const functions may be called from several threads at once.
class Tokenizer {
 public:
  /// Throws Error where a file cannot be read or does not fit the model.
  explicit Tokenizer(const TokenizerFiles&);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Valid UTF-8 to ids, end token included; none where the text normalises to nothing. A leading >>token<< is looked up whole.
  /// The same text gives the same ids as SentencePiece's pieces looked up one by one; beyond 64 KiB it is cut in parts, at spaces where
  /// there are any.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// Pieces separated by spaces to ids, end token included; a piece that is not in the vocabulary is the unknown token.
  std::vector<std::int32_t> encode_pieces(std::string_view pieces) const;
  /// Ids separated by spaces, taken as they are. Throws Error naming what is not an id of the source vocabulary.
  std::vector<std::int32_t> read_ids(std::string_view text) const;

  /// Ids without start and end token to text on one line.
  std::string decode(std::span<const std::int32_t> ids) const;
  /// The same as pieces, or as numbers, separated by spaces.
  std::string decode_pieces(std::span<const std::int32_t> ids) const;
  static std::string write_ids(std::span<const std::int32_t> ids);

 private:
  void encode_part(std::string_view text, std::vector<std::int32_t>& ids) const;
  std::int32_t source_id(std::string_view piece) const { return source_.id_of(piece).value_or(unknown_); }

  std::shared_ptr<const sentencepiece::SentencePieceProcessor> source_model_, target_model_;  // one where both are the same
  Vocabulary source_, target_;
  std::int32_t end_, unknown_;
  std::vector<std::int32_t> ids_of_model_;  // vocabulary id of each of the source model's pieces
};

}  // namespace xlate
