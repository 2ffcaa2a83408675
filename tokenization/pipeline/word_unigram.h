// Segments words by a unigram language model (Kudo, 2018), as Hugging Face's tokenizers library
// does it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/pipeline/description.h"
#include "tokenization/pipeline/pieces.h"
#include "tokenization/viterbi.h"

namespace xlate {

/// Holds the model. Const functions may be called from several threads at once.
class WordUnigram {
 public:
  /// Takes the model's settings, its pieces, and their scores: a little-endian float64 number for
  /// each id. A piece whose score is not a number is not text. `name` names the model file in
  /// messages. Throws Error if the scores do not fit the pieces, or if the model has no id for
  /// unknown characters.
  WordUnigram(const SegmentModel&, const Pieces&, std::string_view scores, const std::string& name);

  /// Appends the ids of the pieces of a word.
  void segment(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  void append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const;

  SegmentModel settings_;
  const Pieces& pieces_;
  Viterbi<double> viterbi_;
  // A byte has the id of its piece, or −1 if it has none.
  std::array<std::int32_t, 256> bytes_{};
};

}  // namespace xlate
