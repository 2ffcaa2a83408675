// Finds the tokens that users added to a tokenizer beside its SentencePiece model's pieces. They
// split a line before it is segmented. The flag single_word asks for a space (U+0020) or an end of
// the line on each side of the token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenization/added_token.h"
#include "tokenization/trie.h"

namespace xlate {

/// Finds added tokens in lines. Const functions may be called from several threads at once.
class AddedTokens {
 public:
  /// Holds a stretch of a line, which is an added token or the text between two of them.
  struct Stretch {
    std::string text;
    // This is the id of the added token, and −1 for text.
    std::int32_t id = -1;
  };

  /// Has no tokens.
  AddedTokens() = default;
  /// Takes the tokens, and the text of each one in the same order. Special tokens are left out,
  /// because in a line they are plain text, and so are tokens with an empty text. Of equal texts
  /// the first one counts.
  AddedTokens(const std::vector<AddedToken>&, const std::vector<std::string_view>& texts);

  bool empty() const { return tokens_.empty(); }
  /// Returns the stretches of a line in their order; none of them is empty. The leftmost token is
  /// found first, and the longest of those that begin together; texts are compared byte by byte.
  /// Then the flags are applied as the tokenizers of transformers 5 that are written in Python do
  /// it (docs/search.md).
  std::vector<Stretch> split(std::string_view line) const;

 private:
  std::vector<std::string> cut(std::string_view line) const;
  const AddedToken* find(const std::string& text) const;

  // `by_text_` and `trie_` map the texts to places in this list.
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::size_t> by_text_;
  Trie trie_;
};

}  // namespace xlate
