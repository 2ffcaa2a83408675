// Makes text of pieces, as Hugging Face's tokenizers library does it.
#pragma once

#include <string>
#include <vector>

#include "tokenization/pipeline/description.h"

namespace xlate {

/// Holds the steps. Const functions may be called from several threads at once.
class PieceDecoder {
 public:
  explicit PieceDecoder(std::vector<DecodeStep> steps) : steps_(std::move(steps)) {}

  /// Returns the text of pieces, in valid UTF-8. Without any step they are joined with spaces.
  std::string decode(std::vector<std::string> pieces) const;

 private:
  std::vector<DecodeStep> steps_;
};

}  // namespace xlate
