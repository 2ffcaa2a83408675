// Makes text of pieces, as Hugging Face's tokenizers library does it.
#pragma once

#include <string>
#include <vector>

#include "tokenization/pipeline/description.h"

namespace xlate {

/// Holds the steps. Const functions may be called from several threads at once.
class PieceDecoder {
 public:
  /// Takes the steps. `name` names the model file in messages.
  PieceDecoder(std::vector<DecodeStep> steps, const std::string& name)
      : steps_(std::move(steps)), name_(name + ": tokenizer.decode") {}

  /// Returns the text of pieces, in valid UTF-8 if the pieces are. Without any step they are joined
  /// with spaces. Throws Error if a step makes the text much longer (GrowthLimit).
  std::string decode(std::vector<std::string> pieces) const;

 private:
  std::vector<DecodeStep> steps_;
  // Messages call the steps by this name.
  std::string name_;
};

}  // namespace xlate
