// Cuts text into sentences by the rules of Unicode, lists the other places where a text may be cut,
// and joins sentences.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

struct UBreakIterator;

namespace xlate {

// Every text is valid UTF-8. A place to cut is given as the number of bytes before it, and the
// places of a list ascend.

/// Finds sentences by the rules of UAX 29 for no language in particular, by ICU. These rules take
/// the full stop of an abbreviation for the end of a sentence unless a lower-case letter follows.
/// Other than by these rules, an opening bracket or quotation mark that follows the end of a
/// sentence without a space, as in Chinese and Japanese, belongs to the next sentence.
class SentenceBreaker {
 public:
  /// Throws Error if ICU cannot find its data.
  SentenceBreaker();
  ~SentenceBreaker();
  SentenceBreaker(const SentenceBreaker&) = delete;
  SentenceBreaker& operator=(const SentenceBreaker&) = delete;

  /// Returns the ends of all sentences. The white space behind a sentence belongs to it, and the
  /// last end is that of the text. Several threads may call it at once.
  std::vector<std::size_t> ends(std::string_view text) const;

 private:
  // It stays without a text. Each call clones it.
  UBreakIterator* prototype_ = nullptr;
};

/// Returns the places behind commas, semicolons, dashes and other marks that end a clause. A mark
/// counts where white space follows, so that numbers stay whole, or if it is a wide one, which is
/// written without a space. Quotation marks and brackets that close behind a mark belong to it.
std::vector<std::size_t> clause_ends(std::string_view text);
/// Returns the places where white space follows a word.
std::vector<std::size_t> word_ends(std::string_view text);
/// Returns the places behind all characters.
std::vector<std::size_t> character_ends(std::string_view text);

/// Appends a sentence to a text. White space at the seam is dropped. A space stands between the
/// two, as almost all scripts have it, Thai and Korean included. Chinese and Japanese have none:
/// neither where the text ends in one of their marks, nor between two of their characters. Closing
/// quotation marks and brackets before the seam are passed over, and opening ones behind it.
void append_sentence(std::string& text, std::string_view sentence);

}  // namespace xlate
