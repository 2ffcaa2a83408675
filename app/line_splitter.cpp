// Implements the cutting of lines. The parts are filled greedily from the left, so that there are
// few of them.
#include "app/line_splitter.h"

#include <algorithm>
#include <utility>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

std::string_view trimmed(std::string_view text) {
  return without_trailing_space(without_leading_space(text));
}

void check_option(const char* option, const Options& options, const ModelDescription& model) {
  if (!model.network.has_encoder()) {
    throw UsageError(
        fmt::format("{}: cannot be used: {} has no encoder, and a prompt has one continuation",
                    option, options.model));
  }
  if (!is_text(options.input_format)) {
    throw UsageError(
        fmt::format("{}: cannot be used with --input-format {}, whose lines hold no text "
                    "in which sentences could be found",
                    option, name_of(options.input_format)));
  }
  if (!options.stop.empty()) {
    throw UsageError(fmt::format(
        "--stop: cannot be used with {}, since every part of a line would end at it", option));
  }
}

}  // namespace

bool splits_lines(const Options& options) {
  return options.split_sentences || options.long_lines == LongLines::kSplit;
}

void check_splitting(const Options& options, const ModelDescription& model) {
  if (options.long_lines == LongLines::kSplit) check_option("--long-lines split", options, model);
  if (!options.split_sentences) return;
  check_option("--split-sentences", options, model);
  if (options.n_best > 0) {
    throw UsageError(
        "--n-best: cannot be used with --split-sentences, which joins the best "
        "translation of each sentence");
  }
}

std::vector<std::string_view> LineSplitter::sentences(std::string_view text) const {
  std::vector<std::string_view> sentences;
  std::size_t begin = 0;
  for (const std::size_t end : breaker_.ends(text)) {
    const std::string_view sentence = trimmed(text.substr(begin, end - begin));
    if (!sentence.empty()) sentences.push_back(sentence);
    begin = end;
  }
  return sentences;
}

std::vector<LineSplitter::Part> LineSplitter::parts(std::string_view text, std::size_t tokens,
                                                    const Encode& encode) const {
  const std::vector<std::size_t> ends = breaker_.ends(text);
  // A quarter more text than fits on the average mostly does not fit.
  const std::size_t bytes = text.size() * longest_ / std::max<std::size_t>(tokens, 1) * 5 / 4 + 1;
  std::vector<Part> parts;
  std::size_t begin = 0;
  while (true) {
    const std::string_view rest = without_leading_space(text.substr(begin));
    if (rest.empty()) return parts;
    begin = text.size() - rest.size();
    const std::size_t size = window_size(rest, bytes, encode);
    std::vector<std::size_t> sentence_ends;
    for (auto end = std::upper_bound(ends.begin(), ends.end(), begin);
         end != ends.end() && *end <= begin + size; ++end)
      sentence_ends.push_back(*end - begin);
    Beginning part = first_part(rest.substr(0, size), sentence_ends, encode);
    begin += part.end;
    if (!part.ids.empty())
      parts.push_back({without_trailing_space(rest.substr(0, part.end)), std::move(part.ids)});
  }
}

// Returns the size of a beginning of the text that has too many tokens, so that the next part ends
// in it, or the whole size. Without such a window the cost of long texts would be quadratic.
std::size_t LineSplitter::window_size(std::string_view text, std::size_t bytes,
                                      const Encode& encode) const {
  for (; bytes < text.size(); bytes *= 2) {
    const std::string_view window = without_cut_character(text.substr(0, bytes));
    if (encode(window).size() > longest_) return window.size();
  }
  return text.size();
}

LineSplitter::Beginning LineSplitter::first_part(std::string_view window,
                                                 const std::vector<std::size_t>& sentence_ends,
                                                 const Encode& encode) const {
  auto part = last_that_fits(window, sentence_ends, encode);
  if (!part) part = last_that_fits(window, clause_ends(window), encode);
  if (!part) part = last_that_fits(window, word_ends(window), encode);
  if (!part) part = last_that_fits(window, character_ends(window), encode);
  if (!part) fail("--max-source-length: {}, which has no room for a character of it", longest_);
  return std::move(*part);
}

// Returns the part up to the last of these ends up to which the text fits, found by bisection, or
// none if it does not fit up to the first one.
std::optional<LineSplitter::Beginning> LineSplitter::last_that_fits(
    std::string_view window, const std::vector<std::size_t>& ends, const Encode& encode) const {
  std::optional<Beginning> found;
  for (std::size_t low = 0, high = ends.size(); low < high;) {
    const std::size_t middle = low + (high - low) / 2;
    Ids ids = encode(without_trailing_space(window.substr(0, ends[middle])));
    if (ids.size() <= longest_) {
      found = Beginning{ends[middle], std::move(ids)};
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return found;
}

}  // namespace xlate
