// Text to the pieces of a SentencePiece model.
//
// Unigram models (Kudo, 2018) are segmented here, not by the library: where two segmentations have
// the same score, the library up to 0.2.1 takes another one than from 0.2.2 on, and what a line is
// translated to must not depend on which is installed. The rule is that of 0.2.2 (docs/search.md).
// All other models go to the library, whose versions agree about them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace xlate {

class Unigram;

/// A text's pieces. Wherever `ids` has the model's unknown id, the next of `unknown` is the text
/// that stands there.
struct Segmentation {
  std::vector<int> ids;
  std::vector<std::string> unknown;
};

/// Const functions may be called from several threads at once.
class Segmenter {
 public:
  /// `bytes`, a serialized model, must outlive the object. `name` names it in errors. Throws Error
  /// where it is no such model.
  Segmenter(std::string_view bytes, const std::string& name);
  ~Segmenter();
  Segmenter(Segmenter&&) noexcept;

  /// Pieces of valid UTF-8, none where the text normalises to nothing. What goes to the library is
  /// cut in parts of 64 KiB, at spaces where there are any.
  Segmentation segment(std::string_view text) const;

  std::int32_t unknown() const { return unknown_; }
  /// The pieces' texts, by id.
  const std::vector<std::string_view>& pieces() const { return pieces_; }

 private:
  void segment_by_library(std::string_view text, Segmentation& out) const;

  std::vector<std::string_view> pieces_;
  std::int32_t unknown_ = 0;
  std::unique_ptr<const Unigram> unigram_;  // or
  std::unique_ptr<const sentencepiece::SentencePieceProcessor> library_;
};

}  // namespace xlate
