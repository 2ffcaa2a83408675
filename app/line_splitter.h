// Cuts lines into parts that are translated one by one: into sentences with --split-sentences, and
// where they are too long with --long-lines split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "app/options.h"
#include "models/description.h"
#include "tokenization/sentences.h"

namespace xlate {

/// Returns whether the options have lines cut into parts.
bool splits_lines(const Options&);
/// Throws UsageError if lines are to be cut, and the model or another option does not allow it.
void check_splitting(const Options&, const ModelDescription&);

/// Its functions may be called from several threads at once.
class LineSplitter {
 public:
  using Ids = std::vector<std::int32_t>;
  /// Returns the source ids of a text that is translated by itself.
  using Encode = std::function<Ids(std::string_view)>;

  /// A part has at most `longest` tokens. Throws Error if the rules of sentences are missing.
  explicit LineSplitter(std::size_t longest) : longest_(longest) {}

  /// Returns the sentences of a text without the white space at their ends, but no blank ones.
  std::vector<std::string_view> sentences(std::string_view text) const;
  /// Holds a part of a text, without white space at its ends, and its ids.
  struct Part {
    std::string_view text;
    Ids ids;
  };
  /// Cuts a text of `tokens` tokens into parts, each of which takes in as much as fits, and returns
  /// them. A part ends where a sentence does, or else a clause, or else a word, or else
  /// anywhere. White space at the ends of a part is dropped, and so are parts without any ids. The
  /// time is about proportional to the text's length. Throws Error if not even one character fits.
  std::vector<Part> parts(std::string_view text, std::size_t tokens, const Encode&) const;

 private:
  struct Beginning {
    std::size_t end = 0;  // the bytes of the text that it takes in
    Ids ids{};
  };
  std::size_t window_size(std::string_view text, std::size_t bytes, const Encode&) const;
  Beginning first_part(std::string_view window, const std::vector<std::size_t>& sentence_ends,
                       const Encode&) const;
  std::optional<Beginning> last_that_fits(std::string_view window,
                                          const std::vector<std::size_t>& ends,
                                          const Encode&) const;

  const std::size_t longest_;
  const SentenceBreaker breaker_;
};

}  // namespace xlate
