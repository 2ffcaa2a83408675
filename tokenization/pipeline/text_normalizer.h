// Normalizes text by the steps of a pipeline, as Hugging Face's tokenizers library does it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenization/charsmap.h"
#include "tokenization/growth_limit.h"
#include "tokenization/pattern.h"
#include "tokenization/pipeline/description.h"

namespace xlate {

/// Holds the steps. Const functions may be called from several threads at once.
class TextNormalizer {
 public:
  /// Takes the steps, and the character map that they may need, which must outlive the object.
  /// `name` names the model file in messages. Throws Error if the map is damaged, or if a pattern
  /// is not valid.
  TextNormalizer(std::vector<NormalizeStep> steps, std::string_view charsmap,
                 const std::string& name);

  /// Returns a text in valid UTF-8 after all steps, in valid UTF-8 again. Throws Error if a step
  /// makes it much longer (GrowthLimit), or if matching a pattern takes too many steps.
  std::string normalize(std::string_view text) const;

 private:
  std::string apply_charsmap(std::string_view text, const GrowthLimit& limit) const;

  std::vector<NormalizeStep> steps_;
  // Messages call the steps by this name.
  std::string name_;
  // A step that replaces a pattern has an element here; that of every other step is empty.
  std::vector<std::vector<Pattern>> patterns_;
  Charsmap charsmap_;
};

}  // namespace xlate
