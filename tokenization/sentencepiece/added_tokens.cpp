// Splits a line at its added tokens, and applies the flags of those tokens.
#include "tokenization/sentencepiece/added_tokens.h"

#include "tokenization/utf8.h"

namespace xlate {

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens,
                         const std::vector<std::string_view>& texts) {
  std::vector<Trie::Key> keys;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].special || texts[i].empty() || !by_text_.emplace(texts[i], tokens_.size()).second)
      continue;
    keys.push_back({texts[i], static_cast<std::int32_t>(tokens_.size())});
    tokens_.push_back(tokens[i]);
  }
  trie_ = Trie(std::move(keys));
}

const AddedToken* AddedTokens::find(const std::string& text) const {
  const auto found = by_text_.find(text);
  return found == by_text_.end() ? nullptr : &tokens_[found->second];
}

// Cuts the line before and behind each added token. The flags of the tokens do not count here.
std::vector<std::string> AddedTokens::cut(std::string_view line) const {
  std::vector<std::string> stretches;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t length = trie_.longest_prefix(line.substr(at));
    if (length == 0) {
      ++at;
      continue;
    }
    if (at > begin) stretches.emplace_back(line.substr(begin, at - begin));
    stretches.emplace_back(line.substr(at, length));
    begin = at += length;
  }
  if (begin < line.size()) stretches.emplace_back(line.substr(begin));
  return stretches;
}

// Tokens are treated from left to right, and what the flags of one do to its neighbour counts when
// the neighbour's turn comes. An added token that has been stripped or extended in this way is text
// from then on.
std::vector<AddedTokens::Stretch> AddedTokens::split(std::string_view line) const {
  std::vector<std::string> stretches = cut(line);
  for (std::size_t i = 0; i < stretches.size(); ++i) {
    const AddedToken* token = find(stretches[i]);
    if (!token) continue;
    const std::string left = i > 0 ? stretches[i - 1] : "",
                      right = i + 1 < stretches.size() ? stretches[i + 1] : "";
    if (token->strips_right && !right.empty()) stretches[i + 1] = without_leading_space(right);
    if (token->strips_left && !left.empty()) stretches[i - 1] = without_trailing_space(left);
    if (!token->single_word) continue;
    if (!left.empty() && left.back() != ' ') {
      stretches[i - 1] += stretches[i];
      stretches[i].clear();
    } else if (!right.empty() && right.front() != ' ') {
      stretches[i + 1].insert(0, stretches[i]);
      stretches[i].clear();
    }
  }
  std::vector<Stretch> result;
  for (std::string& text : stretches) {
    if (text.empty()) continue;
    const AddedToken* token = find(text);
    result.push_back({std::move(text), token ? token->id : -1});
  }
  return result;
}

}  // namespace xlate
