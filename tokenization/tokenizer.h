// Turns text into source ids and target ids into text, by the SentencePiece models and the
// vocabularies of a model file.
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

/// Holds a model's tokenizer files, whose bytes must outlive the tokenizer, and the ids that it
/// needs to know.
struct TokenizerFiles {
  // Messages call the model file by this name.
  std::string name;
  // These are serialized SentencePiece models. Without them, no text is read or written.
  std::optional<std::string_view> source_model, target_model;
  // These are the tables of the vocabularies (tokenization/vocabulary.h).
  std::string_view source_pieces, target_pieces;
  // The embeddings have this many rows, and the vocabularies must have this many entries.
  std::int64_t source_size = 0, target_size = 0;
  // These are source ids: the end token, and the token for a piece that is not in the vocabulary.
  std::int32_t end = 0, unknown = 0;
  // This is a target id; −1 means that there is none.
  std::int32_t pad = -1;
  std::vector<AddedToken> added;
  // Cleans up decoded text (Hugging Face's clean_up_tokenization_spaces).
  bool clean_up_spaces = false;
};

/// Gives a line the ids that MarianTokenizer of transformers 5 gives it, with the differences that
/// docs/search.md lists. Const functions may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads the files. Throws Error if one cannot be read or does not fit the model, or if an added
  /// token has no piece.
  explicit Tokenizer(const TokenizerFiles&);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  /// Returns whether there are SentencePiece models for both sides. Otherwise encode() and decode()
  /// must not be called.
  bool has_text() const { return segmenter_.has_value() && target_model_; }

  /// Returns the source ids of a line in valid UTF-8, with the end token, or none at all if nothing
  /// is left of the line after normalization. Added tokens are looked up whole, and so is a
  /// language token at the start, from >> to the first <<. The stretches of text between them are
  /// each segmented separately.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// Returns the source ids of pieces separated by spaces, with the end token, or none at all if
  /// there are no pieces. A piece that is not in the vocabulary becomes the unknown token.
  std::vector<std::int32_t> encode_pieces(std::string_view pieces) const;
  /// Returns source ids that are written as numbers separated by spaces. No end token is appended.
  /// Throws Error that names the first word which is no id of the source vocabulary.
  std::vector<std::int32_t> read_ids(std::string_view text) const;

  /// Returns the text of target ids, on one line. Pieces are joined, and marks (U+2581) become
  /// spaces. White space at the ends is dropped, except beside an unknown token (" ⁇ "). Padding,
  /// the end token and special added tokens are left out. Spaces before English punctuation are
  /// taken out if TokenizerFiles::clean_up_spaces says so. Throws Error if the library fails.
  std::string decode(std::span<const std::int32_t> ids) const;
  /// Returns the pieces of target ids, separated by spaces. All ids are written, and line breaks in
  /// pieces become spaces.
  std::string decode_pieces(std::span<const std::int32_t> ids) const;
  /// Returns ids as numbers, separated by spaces.
  static std::string write_ids(std::span<const std::int32_t> ids);

 private:
  void append_text(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;
  void append_segments(std::string_view text, std::vector<std::int32_t>& ids) const;
  /// Returns the source id of a piece, or the unknown token's if it has none.
  std::int32_t source_id(std::string_view piece) const {
    return source_.id_of(piece).value_or(unknown_);
  }

  std::optional<Segmenter> segmenter_;
  std::unique_ptr<const sentencepiece::SentencePieceProcessor> target_model_;
  Vocabulary source_, target_;
  AddedTokens added_;
  // These target ids are no text: the padding, and the end token and the special added tokens, if
  // both vocabularies have the same piece under their id.
  std::unordered_set<std::int32_t> silent_;
  bool clean_up_spaces_;
  std::int32_t end_, unknown_;
  // Maps each id of the source's SentencePiece model to an id of the source vocabulary.
  std::vector<std::int32_t> ids_of_model_;
};

}  // namespace xlate
