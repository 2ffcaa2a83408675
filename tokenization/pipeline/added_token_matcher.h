// Finds added tokens in text, as Hugging Face's tokenizers library does it. What is between them is
// tokenized by the pipeline.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/added_token.h"
#include "tokenization/pattern.h"
#include "tokenization/text_range.h"
#include "tokenization/trie.h"

namespace xlate {

/// Holds tokens and their texts. Const functions may be called from several threads at once.
class AddedTokenMatcher {
 public:
  /// Holds a stretch of a text, which is an added token or the text between two of them.
  struct Stretch {
    std::size_t begin = 0, end = 0;
    // This is the id of the added token, and −1 for text.
    std::int32_t id = -1;
  };

  AddedTokenMatcher() = default;
  /// Takes tokens, and the text of each one in the same order. Those with an empty text are left
  /// out. The first one of several tokens with the same text counts.
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& texts);

  bool empty() const { return tokens_.empty(); }
  /// Returns whether no token is found outside of the ranges that split() takes.
  bool has_only_special() const { return only_special_; }
  /// Returns the stretches of a text in their order; none of them is empty. Those of tokens may
  /// overlap where white space belongs to both. The leftmost token is
  /// found first, and the longest of those that begin together. A token whose flag single_word is
  /// set does not count beside a word character. The white space that a token's flags name belongs
  /// to the token. Special tokens are only found where they lie within one of the ranges, which
  /// are in order and do not overlap.
  std::vector<Stretch> split(std::string_view text, std::span<const TextRange> special = {}) const;

 private:
  bool is_single_word(std::string_view text, std::size_t begin, std::size_t end) const;

  std::vector<AddedToken> tokens_;
  bool only_special_ = true;
  // Maps the texts to places in `tokens_`.
  Trie trie_;
  // Has one element, which matches a word character, if a token has the flag single_word.
  std::vector<Pattern> word_character_;
};

}  // namespace xlate
