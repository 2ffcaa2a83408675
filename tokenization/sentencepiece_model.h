// What a SentencePiece model file holds, as far as segmentation needs it: a reader of its protocol
// buffer (sentencepiece_model.proto).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

struct SentencePieceModel {
  // The numbers are the format's own.
  enum class Algorithm : std::uint8_t { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  enum class Type : std::uint8_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string_view text;
    float score = 0;
    Type type = Type::kNormal;
  };
  struct Normalization {
    std::string_view charsmap;  // empty: characters stay as they are
    bool add_dummy_prefix = true;
    bool remove_extra_whitespaces = true;
    bool escape_whitespaces = true;
    bool whitespace_as_suffix = false;
  };

  /// Views point into `bytes`, the serialized model. `name` names it in errors.
  /// Throws Error where it is no such model, or where pieces are missing, empty or there twice.
  static SentencePieceModel read(std::string_view bytes, const std::string& name);

  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;
  Normalization normalization;
  std::vector<Piece> pieces;  // by id
  std::int32_t unknown = -1;  // the id of the piece that stands for what the model does not know
};

}  // namespace xlate
