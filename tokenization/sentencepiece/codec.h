// Makes ids of text by the SentencePiece model of its side, and text of ids by that of the target.
// The pieces of these models are looked up in the vocabularies, as the tokenizers of
// transformers 5 do it that are written in Python (Marian, M2M-100).
#pragma once

#include <optional>

#include "tokenization/sentencepiece/added_tokens.h"
#include "tokenization/sentencepiece/decoder.h"
#include "tokenization/sentencepiece/encoder.h"
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
    // A piece that is not in the target vocabulary has this id. Without one, encode_target() must
    // not be called, and the target's model need not be kept for it.
    std::optional<std::int32_t> target_unknown{};
    // A line may begin with a language token, from >> to the first <<, which is one piece (Marian).
    bool leading_language_token = false;
  };

  /// Takes the models, the vocabularies, which must outlive the codec, and the added tokens of the
  /// source. Throws Error if a model cannot be read.
  SentencePieceCodec(const Files&, const Vocabulary& source, const Vocabulary& target, AddedTokens);

  std::vector<std::int32_t> encode(std::string_view line) const override;
  std::size_t language_token_bytes(std::string_view line) const override;
  std::vector<std::int32_t> encode_target(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;

 private:
  void append_text(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;

  const Vocabulary &source_, &target_;
  SentencePieceEncoder encoder_;
  std::optional<SentencePieceEncoder> target_encoder_;
  SentencePieceDecoder decoder_;
  AddedTokens added_;
  bool leading_language_token_;
};

}  // namespace xlate
