// Declares what the two kinds of tokenizers have in common: those of SentencePiece models
// (tokenization/sentencepiece), and pipelines (tokenization/pipeline).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

/// Turns text into ids and ids into text. Const functions may be called from several threads at
/// once.
class TextCodec {
 public:
  virtual ~TextCodec() = default;
  /// Returns the source ids of a line in valid UTF-8, without those that the template puts around
  /// it.
  virtual std::vector<std::int32_t> encode(std::string_view line) const = 0;
  /// Returns the bytes of a language token that a line begins with, or 0 if it begins with none.
  virtual std::size_t language_token_bytes(std::string_view) const { return 0; }
  /// Returns the target ids of a text in valid UTF-8.
  virtual std::vector<std::int32_t> encode_target(std::string_view text) const = 0;
  /// Returns the text of target ids, none of which is a special token except the unknown one. The
  /// text is valid UTF-8 and may have line breaks.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
};

}  // namespace xlate
