// Makes text of the pieces of a SentencePiece model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/sentencepiece/model.h"
#include "tokenization/sentencepiece/normalizer.h"
#include "tokenization/vocabulary.h"

namespace xlate {

/// Makes text as SentencePieceProcessor::Decode does, several times as fast. Const functions may be
/// called from several threads at once.
class SentencePieceDecoder {
 public:
  /// Takes a model; the bytes that it points into must outlive the object. `vocabulary` has the
  /// pieces of the ids, which need not all be pieces of the model. `name` names the model in
  /// messages. Throws Error if the character map of its denormalization is damaged.
  SentencePieceDecoder(const SentencePieceModel& model, const Vocabulary& vocabulary,
                       const std::string& name);

  /// Returns the text of ids of the vocabulary. Marks (U+2581) stay in pieces that the model does
  /// not have. Throws Error if denormalization makes the text much longer.
  std::string decode(std::span<const std::int32_t> ids) const;

 private:
  /// Says what a piece adds to the text.
  struct Surface {
    enum class Kind : std::uint8_t {
      kText,
      // The text begins with the space of a mark, which is dropped at the start of a line.
      kTextBehindMark,
      // The text is one byte. Neighbouring bytes are characters only together.
      kByte
    };
    // This is the place of the text in `texts_`.
    std::size_t begin = 0;
    std::uint32_t bytes = 0;
    Kind kind = Kind::kText;
  };
  using Pieces = std::unordered_map<std::string_view, const SentencePieceModel::Piece*>;

  void add(const SentencePieceModel& model, const Pieces& pieces, std::string_view piece);
  std::string_view text_of(const Surface& surface) const {
    return std::string_view(texts_).substr(surface.begin, surface.bytes);
  }

  bool drops_first_mark_, keeps_second_mark_;
  // Every id of the vocabulary has a surface. Their texts stand one behind another.
  std::vector<Surface> surfaces_;
  std::string texts_;
  // Changes the text at last, if the model says how.
  std::optional<Normalizer> denormalizer_;
};

}  // namespace xlate
