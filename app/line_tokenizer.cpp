// Implements the reading of lines: text, pieces, ids and objects of JSON.
#include "app/line_tokenizer.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <new>

#include "app/markup_lines.h"
#include "app/scoring.h"
#include "engine/error.h"
#include "tokenization/markup.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

std::int64_t words_in(std::string_view text) {
  std::int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    words += !space && !inside;
    inside = !space;
  }
  return words;
}

std::optional<PromptTemplate> template_of(const Options& options, const Tokenizer& tokenizer) {
  const auto longest = static_cast<std::size_t>(*options.max_source_length);
  if (options.chat) {
    const ChatMessage line{.role = "user", .content = {}};
    return PromptTemplate(tokenizer.chat()->frame_of({&line, 1}), tokenizer, longest);
  }
  if (!options.template_text) return std::nullopt;
  return PromptTemplate(read_template(*options.template_text, "--template"), tokenizer, longest);
}

std::optional<LineSplitter> splitter_of(const Options& options) {
  if (!splits_lines(options)) return std::nullopt;
  return std::optional<LineSplitter>(std::in_place,
                                     static_cast<std::size_t>(*options.max_source_length));
}

// Throws Error if a line has to name a language of its own.
void require_language(bool needed, const char* key, const char* option,
                      const Tokenizer& tokenizer) {
  if (needed) {
    fail("'{}' is missing, expected a language code such as {} there or as {}", key,
         tokenizer.languages().begin()->first, option);
  }
}

}  // namespace

LineTokenizer::LineTokenizer(const Options& options, const Tokenizer& tokenizer, Counters& counters)
    : options_(options),
      tokenizer_(tokenizer),
      counters_(counters),
      targets_(options, tokenizer),
      template_(template_of(options, tokenizer)),
      splitter_(splitter_of(options)),
      source_language_(options.source_lang ? tokenizer.language_id(*options.source_lang) : -1) {}

TokenizedLine LineTokenizer::tokenize(Line& line) const {
  if (make_valid_utf8(line.text)) ++counters_.invalid_utf8;
  TokenizedLine result{.shortened = line.shortened};
  if (options_.output_format == Format::kJsonl) result.fields = "{";
  try {
    read_line(line, result);
    if (!line.prefix.empty()) add_prefix(line.prefix, result);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  line.text = line.prefix = {};
  result.tokens = std::max(result.tokens, result.ids.size());
  cut(result.ids);
  for (std::vector<std::int32_t>& part : result.parts) cut(part);
  cut(result.words);
  if (result.marked) {
    for (std::vector<TextRange>& tokens : result.marked->tokens) cut(tokens);
  }
  return result;
}

void LineTokenizer::read_line(Line& line, TokenizedLine& result) const {
  if (options_.input_format == Format::kJsonl) {
    read_object(line, result);
    return;
  }
  const DirectedLine directed = options_.lang_column
                                    ? read_directions(line.text, tokenizer_)
                                    : DirectedLine{source_language_, -1, line.text};
  result.target_language = directed.target_language;
  const TextPair texts =
      options_.score_pairs ? read_pair(directed.text) : TextPair{directed.text, {}};
  encode(texts.source, directed.source_language, result);
  encode_pair(texts.source, texts.target, template_ ? &*template_ : nullptr, result);
}

void LineTokenizer::read_object(const Line& line, TokenizedLine& result) const {
  if (line.shortened)
    fail("more than {} bytes, and an object cannot be cut", LineReader::kMaxLineBytes);
  if (without_leading_space(line.text).empty()) {
    result.fields.clear();
    return;
  }
  std::vector<JsonMember> members;
  try {
    members = read_json_object(line.text);
  } catch (const Error& error) {
    fail("no object of JSON: {}", error.what());
  }
  if (options_.output_format == Format::kJsonl)
    result.fields = own_fields(members, json_shape_of(options_));
  const JsonRequest request = read_request(
      members,
      {.text = *options_.text_key, .messages = options_.chat, .target = options_.score_pairs});
  result.target_language = target_language_of(request.target_lang);
  result.limit = limit_of(request.max_new_tokens);
  const std::int32_t source_language = source_language_of(request.source_lang);
  if (!request.messages.empty()) {
    encode_messages(request, result);
    return;
  }
  encode(request.text, source_language, result);
  encode_pair(request.text, request.target, template_ ? &*template_ : nullptr, result);
}

std::int32_t LineTokenizer::source_language_of(const std::optional<std::string>& code) const {
  if (code) return language_id("source", *code, tokenizer_);
  require_language(options_.lines_name_source, "source_lang", "--source-lang", tokenizer_);
  return source_language_;
}

std::int32_t LineTokenizer::target_language_of(const std::optional<std::string>& code) const {
  if (code) return language_id("target", *code, tokenizer_);
  require_language(options_.lines_name_target, "target_lang", "--target-lang", tokenizer_);
  return -1;
}

// Returns the limit of a line. Without an encoder each line has one, because the runner has room
// for longer lines than --max-new-tokens asks for.
std::int32_t LineTokenizer::limit_of(std::optional<std::int32_t> new_tokens) const {
  if (scores_lines(options_)) {
    if (new_tokens)
      fail("'max_new_tokens': {}, cannot be used where nothing is generated", *new_tokens);
    return 0;
  }
  if (!options_.max_new_tokens) {
    if (new_tokens) {
      fail(
          "'max_new_tokens': {}, cannot be used: {} has an encoder, and --max-length is its "
          "limit",
          *new_tokens, options_.model);
    }
    return 0;
  }
  if (new_tokens > options_.most_new_tokens) {
    fail("'max_new_tokens': {}, expected at most {}, unless --max-new-tokens is larger",
         *new_tokens, options_.most_new_tokens);
  }
  return new_tokens.value_or(
      static_cast<std::int32_t>(std::min<std::int64_t>(*options_.max_new_tokens, kLargestCount)));
}

// The last message is cut where the conversation is too long. The others stay whole.
// Returns what stands around the last message of a conversation. Throws Error if it leaves no room.
PromptTemplate LineTokenizer::frame_of(TextFrame frame, std::size_t longest) const {
  try {
    return PromptTemplate(std::move(frame), tokenizer_, longest);
  } catch (const UsageError&) {
    fail(
        "'messages': those before the last one take {} tokens or more with the chat template, "
        "expected fewer (--max-source-length)",
        longest);
  }
}

void LineTokenizer::encode_messages(const JsonRequest& request, TokenizedLine& result) const {
  const std::vector<ChatMessage>& messages = request.messages;
  for (const ChatMessage& message : messages) counters_.source_words += words_in(message.content);
  const auto longest = static_cast<std::size_t>(*options_.max_source_length);
  const PromptTemplate frame = frame_of(tokenizer_.chat()->frame_of(messages), longest);
  PromptTemplate::Prompt prompt = frame.prompt_of(messages.back().content);
  result.ids = std::move(prompt.ids);
  result.tokens = prompt.tokens;
  encode_pair(messages.back().content, request.target, &frame, result);
}

// Adds the beginning of the target of a line whose source has been encoded.
void LineTokenizer::add_prefix(std::string& text, TokenizedLine& result) const {
  // Lines that are not translated need no beginning.
  const bool skipped = options_.long_lines == LongLines::kSkip &&
                       result.ids.size() > static_cast<std::size_t>(*options_.max_source_length);
  if (result.ids.empty() || skipped) return;
  make_valid_utf8(text);
  const std::int32_t first =
      result.target_language >= 0 ? result.target_language : options_.target_first;
  result.target.ids = targets_.prefix_of(text, first);
}

// Adds the target of a pair whose source has been encoded. A pair without tokens to score is
// answered as an empty line.
void LineTokenizer::encode_pair(std::string_view source, std::string_view target,
                                const PromptTemplate* frame, TokenizedLine& result) const {
  if (!options_.score_pairs || result.ids.empty()) return;
  const auto longest = static_cast<std::size_t>(*options_.max_source_length);
  if (options_.context > 0) {
    result.target = targets_.continuation_of(source, frame,
                                             std::max(result.tokens, result.ids.size()) > longest,
                                             std::min(result.ids.size(), longest), target);
  } else {
    const std::int32_t first =
        result.target_language >= 0 ? result.target_language : options_.target_first;
    result.target = targets_.target_of(target, first);
  }
  if (result.target.ids.empty()) result.ids.clear();
}

void LineTokenizer::encode(std::string_view text, std::int32_t source_language,
                           TokenizedLine& result) const {
  const bool marked = options_.markup == MarkupKind::kHtml && has_markup(text);
  if (marked)
    encode_marked(text, source_language, result);
  else
    encode_text(text, source_language, result);
}

// Encodes the text of a line of HTML. A language token that it begins with may look like a tag.
void LineTokenizer::encode_marked(std::string_view line, std::int32_t source_language,
                                  TokenizedLine& result) const {
  const std::size_t head = tokenizer_.language_token_bytes(line);
  Markup markup = read_markup(line.substr(head));
  result.marked.emplace();
  result.marked->line = line.substr(head);
  const std::string text = std::string(line.substr(0, head)) + markup.text;
  // split() adds the tokens of parts.
  if (!markup.tags.empty() && !splitter_)
    result.marked->tokens.push_back(marked_tokens(tokenizer_, text, head, 0));
  result.has_tags = !markup.tags.empty();
  encode_text(text, source_language, result);
}

void LineTokenizer::encode_text(std::string_view text, std::int32_t source_language,
                                TokenizedLine& result) const {
  counters_.source_words += words_in(text);
  switch (options_.input_format) {
    case Format::kText:
    case Format::kJsonl:
      if (template_) {
        PromptTemplate::Prompt prompt = template_->prompt_of(text);
        result.ids = std::move(prompt.ids);
        result.tokens = prompt.tokens;
      } else if (splitter_) {
        split(text, source_language, result);
      } else {
        result.ids = tokenizer_.encode(text, source_language);
        if (options_.alignment_words) result.words = tokenizer_.source_words(text);
      }
      break;
    case Format::kPieces:
      result.ids = tokenizer_.encode_pieces(text);
      break;
    case Format::kIds:
      result.ids = tokenizer_.read_ids(text);
      break;
  }
}

// Makes a line of one sentence that fits one source, as without the splitter, and otherwise several
// parts. A language token at the beginning of the line stands before each part.
void LineTokenizer::split(std::string_view text, std::int32_t source_language,
                          TokenizedLine& result) const {
  const std::size_t head = tokenizer_.language_token_bytes(text);
  const std::string token = head > 0 ? std::string(text.substr(0, head)) + ' ' : std::string();
  const auto encode = [&](std::string_view part) {
    if (token.empty()) return tokenizer_.encode(part, source_language);
    return tokenizer_.encode(token + std::string(part), source_language);
  };
  const auto is_cut = [&](std::size_t tokens) {
    return options_.long_lines == LongLines::kSplit &&
           tokens > static_cast<std::size_t>(*options_.max_source_length);
  };
  std::vector<std::string_view> sentences, parts;
  if (options_.split_sentences) sentences = splitter_->sentences(text.substr(head));
  if (sentences.size() <= 1) {
    result.ids = tokenizer_.encode(text, source_language);
    if (!is_cut(result.ids.size())) {
      if (result.has_tags)
        result.marked->tokens.push_back(marked_tokens(tokenizer_, text, head, 0));
      return;
    }
    sentences = {text.substr(head)};
  }
  for (const std::string_view sentence : sentences) {
    auto ids = sentences.size() == 1 ? std::move(result.ids) : encode(sentence);
    result.tokens = std::max(result.tokens, ids.size());
    if (is_cut(ids.size())) {
      for (LineSplitter::Part& part : splitter_->parts(sentence, ids.size(), encode)) {
        result.parts.push_back(std::move(part.ids));
        parts.push_back(part.text);
      }
    } else if (!ids.empty()) {
      result.parts.push_back(std::move(ids));
      parts.push_back(sentence);
    }
  }
  for (const std::string_view part : parts) {
    if (!result.has_tags) break;
    const auto begin = static_cast<std::size_t>(part.data() - text.data()) - head;
    result.marked->tokens.push_back(
        marked_tokens(tokenizer_, token + std::string(part), token.size(), begin));
  }
  result.ids.clear();
  if (result.parts.size() > 1) return;
  if (!result.parts.empty()) result.ids = std::move(result.parts.front());
  result.parts.clear();
}

// Cuts a source that is too long, or what is kept of its tokens, but keeps its closing tokens. The
// ids of a template are not cut here: prompt_of() has cut the line inside it.
template <class Item>
void LineTokenizer::cut(std::vector<Item>& items) const {
  const auto longest = static_cast<std::size_t>(*options_.max_source_length);
  if (items.size() <= longest) return;
  // A source of ids or pieces closes with its end token. A prompt has none.
  const std::size_t closing = std::min(
      std::max<std::size_t>(options_.context > 0 ? 0 : 1, tokenizer_.closing_tokens()), longest);
  std::copy(items.end() - static_cast<std::ptrdiff_t>(closing), items.end(),
            items.begin() + static_cast<std::ptrdiff_t>(longest - closing));
  items.resize(longest);
  items.shrink_to_fit();  // The ids of the longest lines would take megabytes.
}

}  // namespace xlate
