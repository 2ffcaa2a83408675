// Applies the steps of splitting one after another.
#include "tokenization/pipeline/word_splitter.h"

#include <utf8proc.h>

#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Kind = SplitStep::Kind;
using Behavior = SplitStep::Behavior;
using Word = Words::Word;

// A stretch of a word that is a match, or what is between two matches.
struct Stretch {
  std::size_t begin, end;
  bool is_match;
};

// Returns the stretches of a text. Each character for which is_match(character) is true is a match.
template <class IsMatch>
std::vector<Stretch> stretches_by_character(std::string_view text, const IsMatch& is_match) {
  std::vector<Stretch> stretches;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t bytes = character_bytes(text.substr(at));
    const bool match = is_match(text.substr(at, bytes));
    if (!match && !stretches.empty() && !stretches.back().is_match)
      stretches.back().end = at + bytes;
    else
      stretches.push_back({at, at + bytes, match});
    at += bytes;
  }
  return stretches;
}

std::vector<Stretch> stretches_by_pattern(std::string_view text, const Pattern& pattern,
                                          bool invert) {
  std::vector<Stretch> stretches;
  std::size_t at = 0;
  for (const Pattern::Match& match : pattern.matches(text)) {
    if (match.begin > at) stretches.push_back({at, match.begin, invert});
    stretches.push_back({match.begin, match.end, !invert});
    at = match.end;
  }
  if (at < text.size()) stretches.push_back({at, text.size(), invert});
  return stretches;
}

// Returns whether a character is a number (Unicode's categories Nd, Nl and No).
bool is_number(std::string_view character) {
  utf8proc_int32_t code = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                   static_cast<utf8proc_ssize_t>(character.size()), &code);
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

// Appends the words that the stretches of a word make. They begin at `offset` in the text.
void append(const std::vector<Stretch>& stretches, Behavior behavior, std::size_t offset,
            std::vector<Word>& words) {
  const std::size_t first = words.size();
  bool joins_next = false, after_match = false;
  for (std::size_t i = 0; i < stretches.size(); ++i) {
    const Stretch& stretch = stretches[i];
    bool joins = false;
    switch (behavior) {
      case Behavior::kIsolated:
        break;
      case Behavior::kRemoved:
        if (stretch.is_match) continue;
        break;
      case Behavior::kMergedWithPrevious:
        joins = stretch.is_match && !after_match;
        break;
      case Behavior::kMergedWithNext:
        // A match is joined to what follows, unless that is a match itself.
        joins = joins_next;
        joins_next = stretch.is_match && i + 1 < stretches.size() && !stretches[i + 1].is_match;
        break;
      case Behavior::kContiguous:
        joins = stretch.is_match == after_match;
        break;
    }
    after_match = stretch.is_match;
    if (joins && words.size() > first)
      words.back().end = offset + stretch.end;
    else
      words.push_back({offset + stretch.begin, offset + stretch.end});
  }
}

// Turns the spaces of every word into marks, and puts a mark in front of it if the step says so.
void apply_metaspace(const SplitStep& step, bool at_start, Words& words) {
  Words out;
  out.text.reserve(words.text.size() + words.text.size() / 2 + kMark.size());
  for (const Word& word : words.words) {
    const std::string_view text = words.at(word);
    std::size_t begin = out.text.size();
    const bool prepends = step.prepend == Prepend::kAlways ||
                          (step.prepend == Prepend::kFirst && at_start && word.begin == 0);
    if (prepends && text.front() != ' ' && !text.starts_with(kMark)) out.text += kMark;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t bytes = character_bytes(text.substr(at));
      const std::string_view character = text[at] == ' ' ? kMark : text.substr(at, bytes);
      if (step.splits && character == kMark && out.text.size() > begin) {
        out.words.push_back({begin, out.text.size()});
        begin = out.text.size();
      }
      out.text += character;
      at += bytes;
    }
    out.words.push_back({begin, out.text.size()});
  }
  words = std::move(out);
}

void put_spaces_in_front(Words& words) {
  Words out;
  for (const Word& word : words.words) {
    const std::size_t begin = out.text.size();
    if (words.at(word).front() != ' ') out.text += ' ';
    out.text += words.at(word);
    out.words.push_back({begin, out.text.size()});
  }
  words = std::move(out);
}

// Replaces each word by those that its stretches make.
template <class StretchesOf>
void split_each(Behavior behavior, const StretchesOf& stretches_of, Words& words) {
  std::vector<Word> result;
  for (const Word& word : words.words)
    append(stretches_of(words.at(word)), behavior, word.begin, result);
  words.words = std::move(result);
}

}  // namespace

WordSplitter::WordSplitter(std::vector<SplitStep> steps, const std::string& name)
    : steps_(std::move(steps)) {
  for (const SplitStep& step : steps_) {
    std::vector<Pattern>& pattern = patterns_.emplace_back();
    if (!step.pattern.empty()) pattern.emplace_back(step.pattern, name + ": tokenizer.split");
  }
}

Words WordSplitter::split(std::string text, bool at_start) const {
  Words words;
  if (text.empty()) return words;
  words.words.push_back({0, text.size()});
  words.text = std::move(text);
  for (std::size_t i = 0; i < steps_.size(); ++i) apply(steps_[i], patterns_[i], at_start, words);
  return words;
}

void WordSplitter::apply(const SplitStep& step, const std::vector<Pattern>& pattern, bool at_start,
                         Words& words) const {
  switch (step.kind) {
    case Kind::kWhitespace:
      split_each(
          Behavior::kRemoved,
          [](std::string_view text) {
            return stretches_by_character(text, [](std::string_view character) {
              return white_space_at_start(character) > 0;
            });
          },
          words);
      break;
    case Kind::kMetaspace:
      apply_metaspace(step, at_start, words);
      break;
    case Kind::kDigits:
      split_each(
          step.individual ? Behavior::kIsolated : Behavior::kContiguous,
          [](std::string_view text) { return stretches_by_character(text, is_number); }, words);
      break;
    case Kind::kByteLevel:
      if (step.prefix_space) put_spaces_in_front(words);
      [[fallthrough]];
    case Kind::kPattern:
      if (pattern.empty()) break;
      split_each(
          step.behavior,
          [&](std::string_view text) {
            return stretches_by_pattern(text, pattern.front(), step.invert);
          },
          words);
      break;
  }
}

}  // namespace xlate
