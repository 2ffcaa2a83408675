// Finds matches of a regular expression in text. Tokenizers of byte-level BPE split text by such
// patterns, which checkpoints write in the syntax of Oniguruma. PCRE2 reads them here.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace xlate {

/// Holds a compiled pattern. Const functions may be called from several threads at once.
class Pattern {
 public:
  /// Holds the place of a match in a text, in bytes.
  struct Match {
    std::size_t begin = 0, end = 0;
  };

  /// Compiles a pattern. Its character classes are those of Unicode, and \\s is Unicode's property
  /// White_Space. `name` names it in messages. Throws Error if the pattern is not valid.
  Pattern(const std::string& pattern, const std::string& name);
  ~Pattern();
  Pattern(Pattern&&) noexcept;

  /// Returns all matches in a text in valid UTF-8 from left to right. They do not overlap, and none
  /// of them is empty. Throws Error if matching takes more than a few thousand steps for each byte
  /// of the text, which may take 0.3 ms a byte. PCRE2 does not count the steps of its simplest
  /// loops, so that the time may also grow with the square of the text's length.
  std::vector<Match> matches(std::string_view text) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
  std::string name_;
};

}  // namespace xlate
