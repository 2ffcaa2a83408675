// Makes ids of text, and text of ids, by a pipeline (tokenization/pipeline/description.h).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/pipeline/added_token_matcher.h"
#include "tokenization/pipeline/bpe.h"
#include "tokenization/pipeline/description.h"
#include "tokenization/pipeline/piece_decoder.h"
#include "tokenization/pipeline/pieces.h"
#include "tokenization/pipeline/text_normalizer.h"
#include "tokenization/pipeline/word_splitter.h"
#include "tokenization/pipeline/word_unigram.h"
#include "tokenization/text_codec.h"
#include "tokenization/text_range.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// Implements TextCodec with one pipeline for both sides.
class PipelineCodec final : public TextCodec {
 public:
  /// Holds the tables of a pipeline, which must outlive the codec. A table that the pipeline does
  /// not need is empty.
  struct Files {
    // The precompiled character map, the scores of a unigram model and the merges of BPE.
    std::string_view charsmap, scores, merges;
    // Messages call the model file by this name.
    std::string name;
    // This id is written as an unknown piece.
    std::int32_t unknown = 0;
  };

  /// Takes the pipeline, its tables, the vocabulary, which must outlive the codec, and the added
  /// tokens with their texts in the vocabulary. Throws Error if they do not fit together.
  PipelineCodec(const PipelineDescription&, const Files&, const Vocabulary&,
                const std::vector<AddedToken>& added);

  std::vector<std::int32_t> encode(std::string_view line) const override {
    return encode(line, {});
  }
  std::vector<std::int32_t> encode_target(std::string_view text) const override {
    return encode(text, {});
  }
  /// Returns the ids of a text in valid UTF-8. Special added tokens are looked for within the given
  /// ranges, which are in order and do not overlap, and are text elsewhere. Such tokens are always
  /// looked for in the text as it is, and not in normalized text.
  std::vector<std::int32_t> encode(std::string_view text, std::span<const TextRange> special) const;
  std::string decode(std::span<const std::int32_t> ids) const override;

 private:
  void append_text(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;
  void append_words(std::string text, bool at_start, std::vector<std::int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  std::int32_t unknown_;
  Pieces pieces_;
  TextNormalizer normalizer_;
  WordSplitter splitter_;
  // One of the two is there.
  std::optional<WordUnigram> unigram_;
  std::optional<Bpe> bpe_;
  PieceDecoder decoder_;
  // Tokens that are looked for in normalized text are also written so, by their ids.
  std::unordered_map<std::int32_t, std::string> normalized_texts_;
  // Tokens of the first are looked for in a text as it is, and those of the second in normalized
  // text. All special tokens are in the first.
  AddedTokenMatcher added_, added_in_normalized_;
};

}  // namespace xlate
