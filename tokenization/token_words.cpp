// Implements the search for the words of tokens.
#include "tokenization/token_words.h"

#include <algorithm>
#include <optional>
#include <string>

#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Byte-level pieces have this character for a space.
constexpr std::string_view kByteLevelSpace = "\u0120";

// Takes the next word off a text. There is none if nothing but spaces is left.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  const std::string_view word = text.substr(0, text.find(' '));
  text.remove_prefix(word.size());
  return word;
}

std::string_view without_mark(std::string_view piece) {
  for (const std::string_view mark : {kMark, kByteLevelSpace}) {
    if (piece.starts_with(mark)) return piece.substr(mark.size());
  }
  return piece;
}

std::string_view without_marks(std::string_view piece) {
  while (true) {
    const std::string_view text = without_mark(piece);
    if (text.size() == piece.size()) return text;
    piece = text;
  }
}

std::vector<std::size_t> ends_of_words(std::string_view line) {
  std::vector<std::size_t> ends;
  for (std::string_view rest = line; !take_word(rest).empty();)
    ends.push_back(line.size() - rest.size());
  return ends;
}

// Returns how many of the ids are those of the word with or without a space before it, or 0.
std::size_t tokens_of_word(std::string_view word, std::span<const std::int32_t> ids,
                           const TextCodec& codec) {
  for (const char* before : {" ", ""}) {
    const std::vector<std::int32_t> found = codec.encode(before + std::string(word));
    if (!found.empty() && found.size() <= ids.size() &&
        std::equal(found.begin(), found.end(), ids.begin()))
      return found.size();
  }
  return 0;
}

std::optional<std::vector<std::int32_t>> words_by_text(std::string_view line,
                                                       std::span<const std::int32_t> ids,
                                                       const TextCodec& codec,
                                                       const Vocabulary& vocabulary) {
  std::vector<std::int32_t> words;
  std::int32_t number = 0;
  for (std::string_view word = take_word(line); !word.empty(); word = take_word(line), ++number) {
    std::size_t tokens = 0;
    while ((tokens = tokens_of_word(word, ids.subspan(words.size()), codec)) == 0) {
      // A further space before the word may be a token of its own.
      if (words.size() == ids.size() ||
          !without_mark(vocabulary.piece_of(ids[words.size()])).empty())
        return std::nullopt;
      words.push_back(number);
    }
    words.insert(words.end(), tokens, number);
  }
  // Spaces at the end belong to no word.
  if (number == 0 || words.size() < ids.size()) return std::nullopt;
  return words;
}

std::vector<std::int32_t> words_by_marks(std::span<const std::int32_t> ids,
                                         const Vocabulary& vocabulary) {
  std::vector<std::int32_t> words;
  std::int32_t number = -1;
  bool begins = true;  // The next piece with text begins a word.
  for (const std::int32_t id : ids) {
    const std::string_view piece = vocabulary.piece_of(id), text = without_mark(piece);
    begins = begins || text.size() < piece.size();
    if (begins && !text.empty()) {
      ++number;
      begins = false;
    }
    words.push_back(begins ? number + 1 : number);
  }
  // A space at the end is before no word.
  if (begins) {
    for (auto word = words.rbegin(); word != words.rend() && *word > number; ++word) *word = -1;
  }
  return words;
}

}  // namespace

std::int32_t count_words(std::string_view text) {
  std::int32_t words = 0;
  while (!take_word(text).empty()) ++words;
  return words;
}

std::vector<std::int32_t> words_of_source(std::string_view line, std::span<const std::int32_t> ids,
                                          const TextCodec& codec, const Vocabulary& vocabulary) {
  if (auto words = words_by_text(line, ids, codec, vocabulary)) return *words;
  return words_by_marks(ids, vocabulary);
}

std::vector<TextRange> ranges_of_source(std::string_view line, std::span<const std::int32_t> ids,
                                        const TextCodec& codec, const Vocabulary& vocabulary) {
  std::vector<TextRange> ranges(ids.size());
  std::vector<std::int32_t> words;  // They are needed where a piece is not in the line.
  std::vector<std::size_t> ends;    // the ends of these words
  std::size_t place = 0;
  for (std::size_t i = 0; i < ids.size();) {
    const std::string_view piece = without_marks(vocabulary.piece_of(ids[i])),
                           rest = line.substr(place), text = without_leading_space(rest);
    const std::size_t begin = place + rest.size() - text.size();
    if (text.starts_with(piece)) {
      place = piece.empty() ? place : begin + piece.size();
      ranges[i++] = {piece.empty() ? place : begin, place};
      continue;
    }
    if (words.empty()) {
      words = words_of_source(line, ids, codec, vocabulary);
      ends = ends_of_words(line);
    }
    const std::int32_t word = words[i];
    if (word >= 0 && static_cast<std::size_t>(word) < ends.size())
      place = std::max(place, ends[static_cast<std::size_t>(word)]);
    for (; i < ids.size() && words[i] == word; ++i) ranges[i] = {std::min(begin, place), place};
  }
  return ranges;
}

}  // namespace xlate
