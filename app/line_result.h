// LineResult: what is written of a hypothesis.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tokenization/atom_alignment.h"

namespace xlate {

/// Holds the numbers of a token, or a word, of the source and of the one of the target that is
/// aligned with it.
struct TokenPair {
  std::int32_t source = 0, target = 0;
  bool operator==(const TokenPair&) const = default;
  /// Pairs are in the order of their targets.
  bool operator<(const TokenPair& other) const {
    return std::pair(target, source) < std::pair(other.target, other.source);
  }
};

/// Holds a translation of a line, or of a part of one, or one draw of it.
struct LineResult {
  std::string text;
  float sum = 0, score = 0;  // They are those of Hypothesis.
  std::int32_t tokens = 0;   // generated tokens, end token included
  // These are empty unless --alignments or --token-scores asks for them.
  std::vector<TokenPair> alignments{};
  std::vector<float> token_scores{};
  // With --markup html, they align the text of the line with this text.
  std::vector<TextLink> links{};
};

}  // namespace xlate
