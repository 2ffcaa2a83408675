// Segments text into the pieces of a SentencePiece model.
//
// Unigram models (Kudo, 2018) are segmented by tokenization/sentencepiece/unigram, not by the
// library. Where two segmentations have the same score, the library up to 0.2.1 takes another one
// than from 0.2.2 on, and what a line is translated to must not depend on which one is installed.
// The rule is that of 0.2.2 (docs/search.md). BPE models are segmented by
// tokenization/sentencepiece/bpe, because that is several times as fast. All other models, and a
// few BPE models, go to the library, because its versions agree about them. It gets text that is
// normalized already, because it reads outside of a damaged character map.
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

class SentencePieceBpe;
class Normalizer;
class Unigram;

/// Holds the pieces of a text as ids of the model. Each unknown id among `ids` has an entry in
/// `unknown`, in the same order: the normalized text in its place.
struct Segmentation {
  std::vector<int> ids;
  std::vector<std::string> unknown;
};

/// Segments text by one model. Const functions may be called from several threads at once.
class Segmenter {
 public:
  /// Reads `bytes`, a serialized model, which must outlive the object. `name` names the model in
  /// messages. Throws Error if the bytes are no such model.
  Segmenter(std::string_view bytes, const std::string& name);
  ~Segmenter();
  Segmenter(Segmenter&&) noexcept;

  /// Returns the pieces of a text in valid UTF-8. There are none if nothing is left of it after
  /// normalization. Text for the library is cut into parts of about 64 KiB, at marks where there
  /// are any. Throws Error if the library fails, or if normalization makes the text much longer.
  Segmentation segment(std::string_view text) const;

  /// Returns the model's id for text that it does not know.
  std::int32_t unknown() const { return unknown_; }
  /// Returns the texts of the model's pieces, by their ids.
  const std::vector<std::string_view>& pieces() const { return pieces_; }

 private:
  /// Appends the pieces that the library finds in normalized text.
  void segment_by_library(std::string_view text, Segmentation& out) const;

  std::vector<std::string_view> pieces_;
  std::int32_t unknown_ = 0;
  // A word ends behind a mark, instead of in front of it.
  bool marks_end_words_ = false;
  // One of the three segments: that of unigram models, that of BPE models, or the library, for
  // which the normalizer is.
  std::unique_ptr<const Unigram> unigram_;
  std::unique_ptr<const SentencePieceBpe> bpe_;
  std::unique_ptr<const Normalizer> normalizer_;
  std::unique_ptr<const sentencepiece::SentencePieceProcessor> library_;
};

}  // namespace xlate
