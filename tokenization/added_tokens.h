// Tokens that users added to a tokenizer beside its model's pieces: what splits a line before the
// model sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/trie.h"

namespace xlate {

/// The flags are those of Hugging Face's AddedToken.
struct AddedToken {
  std::int32_t id = 0;        // of the source vocabulary, which has its text
  bool strips_left = false;   // white space before it goes (lstrip)
  bool strips_right = false;  // and behind it (rstrip)
  bool single_word = false;   // it is one only between blanks and the line's ends
  bool special =
      false;  // </s> and its like: never in a line, and no text where the model chooses it
};

/// Finds added tokens in lines. Const functions may be called from several threads at once.
class AddedTokens {
 public:
  /// A stretch of a line: an added token, or text between two of them.
  struct Stretch {
    std::string text;
    std::int32_t id = -1;  // of the added token; −1: text
  };

  AddedTokens() = default;
  /// Special tokens are left out: a line cannot hold them. `texts` has each token's text, in the
  /// same order.
  AddedTokens(const std::vector<AddedToken>&, const std::vector<std::string_view>& texts);

  bool empty() const { return tokens_.empty(); }
  /// The line's stretches, in order, none of them empty: the leftmost token first, of those that
  /// begin together the longest, compared byte by byte; then the tokens' flags, as the tokenizers
  /// of transformers 5 that are written in Python apply them (docs/search.md).
  std::vector<Stretch> split(std::string_view line) const;

 private:
  std::vector<std::string> cut(std::string_view line) const;
  const AddedToken* find(const std::string& text) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::size_t> by_text_;
  Trie trie_;
};

}  // namespace xlate
