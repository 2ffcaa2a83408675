// Segments words by byte pair encoding (Sennrich et al., 2016): of the neighbouring pieces of a
// word, the pair whose merge comes first in a list becomes one piece, until no pair is in the list.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/pair_merges.h"
#include "tokenization/pipeline/description.h"
#include "tokenization/pipeline/pieces.h"

namespace xlate {

/// Holds the merges. Const functions may be called from several threads at once.
class Bpe {
 public:
  /// Takes the model's settings, its pieces, and its merges: three little-endian int32 numbers for
  /// each merge in the order of their ranks, which are the ids of the left piece, of the right
  /// piece and of the merged piece. With `byte_level` a word begins as a piece for each of its
  /// bytes, otherwise as a piece for each of its characters. `name` names the model file in
  /// messages. Throws Error if the merges do not fit the pieces.
  Bpe(const SegmentModel&, const Pieces&, std::string_view merges, bool byte_level,
      const std::string& name);

  /// Appends the ids of the pieces of a word. The time grows with n·log n for n characters.
  void segment(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  void append_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const;

  SegmentModel settings_;
  const Pieces& pieces_;
  bool byte_level_;
  // A byte has the id of the piece that stands for it: of a word's byte with byte_level, and of an
  // unknown character's byte with byte_fallback. The id is −1 if there is none.
  std::array<std::int32_t, 256> bytes_{};
  PairMerges merges_;
  // Words that are not segmented, as text or bytes, if the settings ask for it.
  std::unordered_map<std::string, std::int32_t> whole_words_;
};

}  // namespace xlate
