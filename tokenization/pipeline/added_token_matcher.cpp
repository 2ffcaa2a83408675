// Looks for added tokens from left to right.
#include "tokenization/pipeline/added_token_matcher.h"

#include <unordered_set>

#include "tokenization/utf8.h"

namespace xlate {
namespace {

// These are the word characters of the Unicode standard for regular expressions (UTS 18), which
// the library asks for with \w.
constexpr const char* kWordCharacter = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";

// Returns the bytes of the last character of a text that is not empty.
std::size_t last_character(std::string_view text) {
  std::size_t bytes = 1;
  while (bytes < text.size() && bytes < 4 &&
         (static_cast<unsigned char>(text[text.size() - bytes]) & 0xC0) == 0x80)
    ++bytes;
  return bytes;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens,
                                     const std::vector<std::string>& texts) {
  std::vector<Trie::Key> keys;
  std::unordered_set<std::string_view> known;
  bool has_single_words = false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (texts[i].empty() || !known.insert(texts[i]).second) continue;
    keys.push_back({texts[i], static_cast<std::int32_t>(tokens_.size())});
    tokens_.push_back(tokens[i]);
    only_special_ &= tokens[i].special;
    has_single_words |= tokens[i].single_word;
  }
  trie_ = Trie(std::move(keys));
  if (has_single_words) word_character_.emplace_back(kWordCharacter, "added tokens");
}

bool AddedTokenMatcher::is_single_word(std::string_view text, std::size_t begin,
                                       std::size_t end) const {
  const auto is_word = [&](std::string_view character) {
    return !word_character_.front().matches(character).empty();
  };
  const std::string_view left = text.substr(0, begin), right = text.substr(end);
  return (left.empty() || !is_word(left.substr(left.size() - last_character(left)))) &&
         (right.empty() || !is_word(right.substr(0, character_bytes(right))));
}

// A token may begin inside the white space that belongs to the one before it. Then it is found as
// well, and the text goes on behind it.
std::vector<AddedTokenMatcher::Stretch> AddedTokenMatcher::split(
    std::string_view text, std::span<const TextRange> special) const {
  std::vector<Stretch> stretches;
  std::size_t done = 0;
  // This is the run of white space that was looked through last.
  std::size_t white_begin = 0, white_end = 0;
  auto range = special.begin();
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    std::int32_t place = -1;
    while (range != special.end() && range->end <= at) ++range;
    // A special token that begins here must end here.
    const std::size_t special_end = range != special.end() && range->begin <= at ? range->end : at;
    trie_.each_prefix(text.substr(at), [&](std::size_t bytes, std::int32_t value) {
      if (at + bytes > special_end && tokens_[static_cast<std::size_t>(value)].special) return;
      length = bytes;
      place = value;
    });
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(place)];
    std::size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    if (token.strips_left) {
      while (begin > done) {
        const std::size_t space = white_space_at_end(text.substr(done, begin - done));
        if (space == 0) break;
        begin -= space;
      }
    }
    if (token.strips_right) {
      if (end < white_begin || end > white_end) {
        white_begin = white_end = end;
        while (const std::size_t space = white_space_at_start(text.substr(white_end)))
          white_end += space;
      }
      end = white_end;
    }
    if (begin > done) stretches.push_back({done, begin, -1});
    stretches.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) stretches.push_back({done, text.size(), -1});
  return stretches;
}

}  // namespace xlate
