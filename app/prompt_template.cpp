// Reads templates, and fills them with lines.
#include "app/prompt_template.h"

#include <algorithm>

#include "app/options.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::string_view kLine = "{line}";
// A line may have a megabyte, so that the number of its copies in a prompt is bounded.
constexpr std::size_t kMostLines = 16;

// Takes an escape off the beginning of a text and returns the character that it stands for.
char take_escape(std::string_view& text, const std::string& option) {
  const char kind = text.size() > 1 ? text[1] : '\0';
  const char character = kind == 'n' ? '\n' : kind == 't' ? '\t' : kind;
  if (kind != 'n' && kind != 't' && kind != '{' && kind != '\\') {
    const std::size_t shown = text.size() > 1 ? 1 + character_bytes(text.substr(1)) : 1;
    throw UsageError(
        fmt::format("{}: '{}', expected \\n, \\t, \\{{ or \\\\", option, text.substr(0, shown)));
  }
  text.remove_prefix(2);
  return character;
}

}  // namespace

std::string unescape(std::string_view text, const std::string& option) {
  std::string result;
  while (!text.empty()) {
    if (text.front() == '\\') {
      result += take_escape(text, option);
    } else {
      result += text.front();
      text.remove_prefix(1);
    }
  }
  return result;
}

TextFrame read_template(std::string_view text, const std::string& option) {
  if (std::string copy(text); make_valid_utf8(copy))
    throw UsageError(fmt::format("{}: its text is not valid UTF-8", option));
  TextFrame frame;
  std::vector<std::string>& parts = frame.texts;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (text.substr(at).starts_with(kLine)) {
      parts.push_back(unescape(text.substr(begin, at - begin), option));
      begin = at += kLine.size();
    } else {
      // The character behind a backslash begins nothing.
      at += text[at] == '\\' ? 2 : 1;
    }
  }
  parts.push_back(unescape(text.substr(begin), option));
  if (parts.size() == 1)
    throw UsageError(fmt::format("{}: expected {{line}} where the line is to stand", option));
  if (parts.size() > kMostLines + 1)
    throw UsageError(fmt::format("{}: {{line}} stands {} times, expected at most {} times", option,
                                 parts.size() - 1, kMostLines));
  frame.contents.resize(parts.size() - 1);
  return frame;
}

PromptTemplate::PromptTemplate(TextFrame frame, const Tokenizer& tokenizer, std::size_t longest)
    : frame_(std::move(frame)),
      tokenizer_(tokenizer),
      longest_(longest),
      ids_alone_(ids_around("")) {
  if (ids_alone_.size() >= longest) {
    throw UsageError(
        fmt::format("--max-source-length: {}, expected more than the {} tokens of the template",
                    longest, ids_alone_.size()));
  }
}

PromptTemplate::Prompt PromptTemplate::prompt_of(std::string_view line) const {
  Prompt prompt;
  if (line.empty()) return prompt;
  prompt.ids = ids_around(line);
  prompt.tokens = prompt.ids.size();
  if (prompt.ids == ids_alone_) return {};
  if (prompt.tokens > longest_) prompt.ids = ids_of_beginning(line);
  return prompt;
}

std::vector<std::int32_t> PromptTemplate::ids_around(std::string_view line) const {
  return tokenizer_.encode(frame_.around(line));
}

// Returns the ids of the template around the beginning of a line that is too long as a whole. The
// length of the beginning is found by bisection, because the tokens at the ends of the line depend
// on the text beside it. A longer text can have fewer tokens, so that the beginning is nearly, but
// not always, the longest one that fits.
std::vector<std::int32_t> PromptTemplate::ids_of_beginning(std::string_view line) const {
  std::vector<std::int32_t> ids = ids_alone_;
  // A beginning of `fits` bytes fits, and `ids` are its ids. One of `too_long` bytes does not fit.
  std::size_t fits = 0, too_long = line.size();
  const auto look_at = [&](std::size_t bytes) {
    const std::string_view beginning = without_cut_character(line.substr(0, bytes));
    if (beginning.size() > fits) {
      std::vector<std::int32_t> found = ids_around(beginning);
      if (found.size() > longest_) {
        too_long = bytes;
        return;
      }
      ids = std::move(found);
    }
    fits = bytes;
  };
  // Most lines have a few bytes for each token, so that a long line is not looked at as a whole.
  for (std::size_t bytes = longest_; bytes < too_long; bytes *= 2) look_at(bytes);
  while (too_long - fits > 1) look_at(fits + (too_long - fits) / 2);
  return ids;
}

}  // namespace xlate
