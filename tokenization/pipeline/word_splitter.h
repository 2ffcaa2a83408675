// Splits text into the words that a model segments one by one, as Hugging Face's tokenizers library
// does it (its pre-tokenizers).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/pattern.h"
#include "tokenization/pipeline/description.h"

namespace xlate {

/// Holds the words of a text. They are stretches of `text`, in their order; none of them is empty.
struct Words {
  struct Word {
    std::size_t begin = 0, end = 0;
  };
  std::string text;
  std::vector<Word> words;

  std::string_view at(const Word& word) const {
    return std::string_view(text).substr(word.begin, word.end - word.begin);
  }
};

/// Holds the steps. Const functions may be called from several threads at once.
class WordSplitter {
 public:
  /// Takes the steps. `name` names the model file in messages. Throws Error if a pattern is not
  /// valid.
  WordSplitter(std::vector<SplitStep> steps, const std::string& name);

  /// Returns the words of a text in valid UTF-8. `at_start` says that it is the beginning of a
  /// line.
  Words split(std::string text, bool at_start) const;

 private:
  void apply(const SplitStep&, const std::vector<Pattern>&, bool at_start, Words&) const;

  std::vector<SplitStep> steps_;
  // A step with a pattern has one element here.
  std::vector<std::vector<Pattern>> patterns_;
};

}  // namespace xlate
