// Makes ids of text by the SentencePiece model of the source, and text of ids by that of the
// target. The pieces of these models are looked up in the vocabularies, as the tokenizers of
// transformers 5 do it that are written in Python (Marian, M2M-100).
#pragma once

#include "tokenization/sentencepiece/added_tokens.h"
#include "tokenization/sentencepiece/decoder.h"
#include "tokenization/sentencepiece/segmenter.h"
#include "tokenization/text_codec.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// Implements TextCodec with two SentencePiece models.
class SentencePieceCodec final : public TextCodec {
 public:
  /// Holds serialized SentencePiece models, which must outlive the codec, and what it needs to know
  /// of the vocabularies.
  struct Files {
    std::string_view source_model, target_model;
    // Messages call the model file by this name.
    std::string name;
    // A piece that is not in the source vocabulary has this id.
    std::int32_t unknown = 0;
    // A line may begin with a language token, from >> to the first <<, which is one piece (Marian).
    bool leading_language_token = false;
  };

  /// Takes the models, the vocabularies, which must outlive the codec, and the added tokens of the
  /// source. Throws Error if a model cannot be read.
  SentencePieceCodec(const Files&, const Vocabulary& source, const Vocabulary& target, AddedTokens);

  std::vector<std::int32_t> encode(std::string_view line) const override;
  std::size_t language_token_bytes(std::string_view line) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;

 private:
  void append_text(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;
  void append_segments(std::string_view text, std::vector<std::int32_t>& ids) const;
  /// Returns the source id of a piece, or the unknown token's if it has none.
  std::int32_t source_id(std::string_view piece) const {
    return source_.id_of(piece).value_or(unknown_);
  }

  const Vocabulary& source_;
  Segmenter segmenter_;
  SentencePieceDecoder decoder_;
  AddedTokens added_;
  std::int32_t unknown_;
  bool leading_language_token_;
  // Maps each id of the source's SentencePiece model to an id of the source vocabulary.
  std::vector<std::int32_t> ids_of_model_;
};

}  // namespace xlate
