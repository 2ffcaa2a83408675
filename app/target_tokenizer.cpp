// Implements the reading of pairs.
#include "app/target_tokenizer.h"

#include <algorithm>

#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {

TextPair read_pair(std::string_view line) {
  if (without_leading_space(line).empty()) return {};
  const std::size_t tab = line.find('\t');
  if (tab == std::string_view::npos) {
    const std::string shown = brief_text(line);
    fail("a tab is missing behind '{}{}', expected SOURCE<TAB>TARGET (--score-pairs)", shown,
         shown.size() < line.size() ? "…" : "");
  }
  return {line.substr(0, tab), line.substr(tab + 1)};
}

TargetTokenizer::Target TargetTokenizer::target_of(std::string_view text,
                                                   std::int32_t first) const {
  return ended(ids_behind(first, text), static_cast<std::size_t>(options_.longest_target),
               first >= 0);
}

TargetTokenizer::Target TargetTokenizer::continuation_of(std::string_view line,
                                                         const PromptTemplate* frame, bool is_cut,
                                                         std::size_t prompt_tokens,
                                                         std::string_view text) const {
  const bool apart = is_cut || !is_text(options_.input_format);
  const auto together = [&] {
    return frame ? frame->continuation_of(line, text)
                 : tokenizer_.encode_continuation({.text = std::string(line), .special = {}}, text);
  };
  return ended(apart ? ids_of(text) : together(),
               static_cast<std::size_t>(options_.context) - prompt_tokens, false);
}

std::vector<std::int32_t> TargetTokenizer::prefix_of(std::string_view text,
                                                     std::int32_t first) const {
  std::vector<std::int32_t> ids = ids_behind(first, text);
  if (std::ssize(ids) > options_.longest_prefix)
    fail("--target-prefix {}: {} tokens in this line, expected at most {}", options_.target_prefix,
         ids.size(), options_.longest_prefix);
  return ids;
}

// Ids and pieces may be those that a run has printed, which begin with the forced first token.
std::vector<std::int32_t> TargetTokenizer::ids_behind(std::int32_t first,
                                                      std::string_view text) const {
  std::vector<std::int32_t> ids = ids_of(text);
  const bool is_printed = !is_text(options_.input_format) && first >= 0;
  if (is_printed && !ids.empty() && ids.front() == first) ids.erase(ids.begin());
  return ids;
}

std::vector<std::int32_t> TargetTokenizer::ids_of(std::string_view text) const {
  if (options_.input_format == Format::kPieces) return tokenizer_.encode_target_pieces(text);
  if (options_.input_format == Format::kIds) return tokenizer_.read_target_ids(text);
  return tokenizer_.encode_target(text);
}

// Appends the end token. A target that is too long is cut before it.
TargetTokenizer::Target TargetTokenizer::ended(std::vector<std::int32_t> ids, std::size_t most,
                                               bool has_first) const {
  const std::size_t others = (options_.target_end >= 0 ? 1 : 0) + (has_first ? 1 : 0);
  Target target{.ids = std::move(ids), .tokens = 0, .most = most};
  target.tokens = target.ids.size() + others;
  if (target.tokens > most) {
    target.ids.resize(std::max(most, others) - others);
    target.ids.shrink_to_fit();
  }
  if (options_.target_end >= 0) target.ids.push_back(options_.target_end);
  return target;
}

}  // namespace xlate
