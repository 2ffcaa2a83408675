// Reads of a SentencePiece model file (a protocol buffer, sentencepiece_model.proto) what
// segmentation and decoding need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

/// Holds the pieces and the settings of a model. The names are those of sentencepiece_model.proto
/// where there is one.
struct SentencePieceModel {
  // The format gives these numbers.
  enum class Algorithm : std::uint8_t { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  enum class Type : std::uint8_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  /// Holds a piece. The score of a normal piece of a unigram model is the logarithm of its
  /// probability.
  struct Piece {
    std::string_view text;
    float score = 0;
    Type type = Type::kNormal;
  };
  /// Holds the rules by which text is normalized before it is segmented.
  struct Normalization {
    // Says which characters are replaced (precompiled_charsmap). If it is empty, none are.
    std::string_view charsmap;
    bool add_dummy_prefix = true;
    bool remove_extra_whitespaces = true;
    bool escape_whitespaces = true;
    bool whitespace_as_suffix = false;
  };

  /// Reads the serialized model `bytes`, into which the views of the result point. `name` names the
  /// model in messages. Throws Error if it is no such model, if a piece is empty or is there twice,
  /// if not exactly one piece stands for unknown text, or if a byte piece is not written as <0x00>
  /// to <0xFF>.
  static SentencePieceModel read(std::string_view bytes, const std::string& name);
  /// Returns the serialized model `bytes` with rules that leave text as it is. Throws Error if it
  /// is no such model.
  static std::string without_normalization(std::string_view bytes, const std::string& name);

  Algorithm algorithm = Algorithm::kUnigram;
  // Unknown text becomes a piece for each of its bytes.
  bool byte_fallback = false;
  Normalization normalization;
  // Decoded text is changed by these rules if they have a character map.
  Normalization denormalization;
  // The piece for unknown text is decoded to this.
  std::string unknown_surface = " \u2047 ";
  // A piece's place in this list is its id.
  std::vector<Piece> pieces;
  // The piece with this id stands for text that the model does not know.
  std::int32_t unknown = -1;
};

}  // namespace xlate
