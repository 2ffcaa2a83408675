// Reads lines as their format says, and makes source ids of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/json_lines.h"
#include "app/languages.h"
#include "app/line_markup.h"
#include "app/line_reader.h"
#include "app/line_splitter.h"
#include "app/line_words.h"
#include "app/options.h"
#include "app/prompt_template.h"
#include "app/report.h"
#include "app/target_tokenizer.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// A line as ids, and what is kept of it.
struct TokenizedLine {
  std::vector<std::int32_t> ids{};  // There are at most --max-source-length.
  // If the line is cut into several parts, these are the ids of each, and `ids` is empty.
  std::vector<std::vector<std::int32_t>> parts{};
  // It counts the tokens of the whole line, or with --split-sentences of its longest sentence.
  std::size_t tokens = 0;
  bool shortened = false;
  std::int32_t target_language = -1;   // This is the id of its token if the line names it.
  std::int32_t limit = 0;              // It is Sentence::limit.
  TokenWords words{};                  // With --alignment-words, they are the words of the ids.
  bool has_tags = false;               // With --markup html, the line has tags.
  std::optional<MarkedLine> marked{};  // With --markup html, it is there if the line has markup.
  // With --score-pairs, it is what is scored, and with --target-prefix what the output begins with.
  TargetTokenizer::Target target{};
  std::string error{};  // It says why the line cannot be tokenized, and is empty if it can.
  // With --output-format jsonl, it is the beginning of the output object (own_fields()). It is
  // empty where a line of white space is to be answered by an empty line.
  std::string fields{};
};

/// Its const functions may be called from several threads at once.
class LineTokenizer {
 public:
  /// The options must have been filled in by resolve(), and all arguments must outlive the object.
  /// Throws UsageError if the template leaves no room for a line.
  LineTokenizer(const Options&, const Tokenizer&, Counters&);

  /// Tokenizes a line, whose text is freed.
  TokenizedLine tokenize(Line&) const;

 private:
  void read_line(Line&, TokenizedLine&) const;
  void read_object(const Line&, TokenizedLine&) const;
  std::int32_t source_language_of(const std::optional<std::string>& code) const;
  std::int32_t target_language_of(const std::optional<std::string>& code) const;
  std::int32_t limit_of(std::optional<std::int32_t> new_tokens) const;
  PromptTemplate frame_of(TextFrame, std::size_t longest) const;
  void encode_messages(const JsonRequest&, TokenizedLine&) const;
  void add_prefix(std::string& text, TokenizedLine&) const;
  void encode_pair(std::string_view source, std::string_view target, const PromptTemplate*,
                   TokenizedLine&) const;
  void encode(std::string_view text, std::int32_t source_language, TokenizedLine&) const;
  void encode_marked(std::string_view line, std::int32_t source_language, TokenizedLine&) const;
  void encode_text(std::string_view text, std::int32_t source_language, TokenizedLine&) const;
  void split(std::string_view text, std::int32_t source_language, TokenizedLine&) const;
  template <class Item>
  void cut(std::vector<Item>& items) const;

  const Options& options_;
  const Tokenizer& tokenizer_;
  Counters& counters_;
  const TargetTokenizer targets_;
  const std::optional<PromptTemplate> template_;
  const std::optional<LineSplitter> splitter_;  // It is there if lines are cut into parts.
  const std::int32_t source_language_;          // This is the id of its token, or −1.
};

}  // namespace xlate
