// Bounds how long a text may become by the steps of a model file or the character map of a
// SentencePiece model. Each may replace a character
// by many, so that a damaged or malicious file could multiply a text until memory runs out.
#pragma once

#include <cstddef>
#include <string>

#include "engine/error.h"

namespace xlate {

/// Holds the most bytes that a text may have after any of the steps. The form NFKC, which makes 33
/// bytes of the three of U+FDFA, and a step that replaces spaces by marks stay far below it.
class GrowthLimit {
 public:
  /// Takes the bytes of the text before the first step. `what` names the steps in messages.
  GrowthLimit(std::size_t bytes, const std::string& what)
      : bytes_(bytes), most_(32 * bytes + 4096), what_(what) {}

  /// Throws Error if a text is longer than the limit. Steps call it before they make the text.
  void check(std::size_t bytes) const {
    if (bytes > most_)
      fail("{}: a text of {} bytes grows to {}, expected at most {}", what_, bytes_, bytes, most_);
  }

 private:
  std::size_t bytes_, most_;
  const std::string& what_;
};

}  // namespace xlate
