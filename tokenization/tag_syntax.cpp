// Implements the recognition of tags, a subset of the syntax of the HTML Living Standard, section
// 13.1.
#include "tokenization/tag_syntax.h"

#include <algorithm>
#include <iterator>

namespace xlate {
namespace {

constexpr std::string_view kVoidElements[] = {"area",  "base",   "br",    "col",  "embed",
                                              "hr",    "img",    "input", "link", "meta",
                                              "param", "source", "track", "wbr"};

constexpr std::string_view kSeparating[] = {
    "address",  "article", "aside",  "blockquote", "body",    "br",    "caption",  "center",
    "dd",       "details", "dialog", "div",        "dl",      "dt",    "fieldset", "figcaption",
    "figure",   "footer",  "form",   "h1",         "h2",      "h3",    "h4",       "h5",
    "h6",       "head",    "header", "hgroup",     "hr",      "html",  "img",      "input",
    "legend",   "li",      "main",   "menu",       "nav",     "ol",    "optgroup", "option",
    "p",        "pre",     "search", "section",    "summary", "table", "tbody",    "td",
    "textarea", "tfoot",   "th",     "thead",      "title",   "tr",    "ul"};

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r' && c != '\v'); }

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_name_character(char c) {
  return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == ':' || c == '.';
}

bool ends_attribute_name(char c) {
  return is_space(c) || c == '"' || c == '\'' || c == '<' || c == '>' || c == '/' || c == '=';
}

bool ends_unquoted_value(char c) {
  return is_space(c) || c == '"' || c == '\'' || c == '<' || c == '>' || c == '=' || c == '`';
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

template <class Ends>
std::size_t end_of(std::string_view line, std::size_t place, const Ends& ends) {
  while (place < line.size() && !ends(line[place])) ++place;
  return place;
}

std::size_t skip_space(std::string_view line, std::size_t place) {
  return end_of(line, place, [](char c) { return !is_space(c); });
}

}  // namespace

TagSyntax TagReader::read(std::size_t place) {
  if (place + 1 >= line_.size() || !may_begin_tag(line_[place + 1])) return {};
  const char next = line_[place + 1];
  return next == '!' || next == '?' ? read_declaration(place) : read_tag(place);
}

// Returns the place behind the next copy of a text, or npos. `missing` says that there is none.
std::size_t TagReader::find(std::string_view text, std::size_t place, bool& missing) {
  if (missing) return std::string_view::npos;
  const std::size_t found = line_.find(text, place);
  missing = found == std::string_view::npos;
  return missing ? found : found + text.size();
}

// Reads a comment, or a declaration or processing instruction, which ends at the next `>`.
TagSyntax TagReader::read_declaration(std::size_t place) {
  const bool comment = line_.substr(place).starts_with("<!--");
  const bool named = place + 2 < line_.size() && is_letter(line_[place + 2]);
  if (!comment && !named) return {};
  const std::size_t end =
      comment ? find("-->", place + 4, no_comment_end_) : find(">", place + 2, no_greater_);
  if (end == std::string_view::npos) return {.bytes = comment ? std::size_t{4} : std::size_t{2}};
  return {TagSyntax::Kind::kAlone, end - place};
}

TagSyntax TagReader::read_tag(std::size_t place) {
  const bool closes = line_[place + 1] == '/';
  const std::size_t first = place + (closes ? 2 : 1);
  if (first >= line_.size() || !is_letter(line_[first])) return {.bytes = first - place};
  std::size_t end = end_of(line_, first, [](char c) { return !is_name_character(c); });
  TagSyntax tag{closes ? TagSyntax::Kind::kEnd : TagSyntax::Kind::kStart};
  std::transform(line_.begin() + static_cast<std::ptrdiff_t>(first),
                 line_.begin() + static_cast<std::ptrdiff_t>(end), std::back_inserter(tag.name),
                 lower);
  while (true) {
    const std::size_t behind_space = skip_space(line_, end);
    const std::string_view rest = line_.substr(behind_space);
    if (rest.starts_with('>')) {
      tag.bytes = behind_space + 1 - place;
      break;
    }
    if (rest.starts_with("/>") && !closes) {
      tag.bytes = behind_space + 2 - place;
      tag.kind = TagSyntax::Kind::kAlone;
      return tag;
    }
    const std::size_t attribute_end =
        behind_space > end && !closes ? end_of_attribute(behind_space) : std::string_view::npos;
    if (attribute_end == std::string_view::npos) return {.bytes = behind_space - place};
    end = attribute_end;
  }
  if (closes) return tag;
  if (is_void_element(tag.name)) tag.kind = TagSyntax::Kind::kAlone;
  if (const std::size_t content = end_of_content(place + tag.bytes, tag.name); content > 0) {
    tag.bytes = content - place;
    tag.kind = TagSyntax::Kind::kAlone;
  }
  return tag;
}

// Returns the end of the attribute at a place, or npos if it is malformed.
std::size_t TagReader::end_of_attribute(std::size_t place) {
  const std::size_t name_end = end_of(line_, place, ends_attribute_name);
  if (name_end == place) return std::string_view::npos;
  const std::size_t equals = skip_space(line_, name_end);
  if (!line_.substr(equals).starts_with('=')) return name_end;
  const std::size_t value = skip_space(line_, equals + 1);
  if (line_.substr(value).starts_with('"')) return find("\"", value + 1, no_double_quote_);
  if (line_.substr(value).starts_with('\'')) return find("'", value + 1, no_single_quote_);
  const std::size_t end = end_of(line_, value, ends_unquoted_value);
  return end == value ? std::string_view::npos : end;
}

// Returns the end of a script or a style sheet that begins at a place, with its end tag, or 0 if
// the element is another one, or is not closed.
std::size_t TagReader::end_of_content(std::size_t place, std::string_view name) {
  const bool script = name == "script";
  if (!script && name != "style") return 0;
  const std::size_t end =
      find(script ? "</script>" : "</style>", place, script ? no_script_end_ : no_style_end_);
  return end == std::string_view::npos ? 0 : end;
}

bool is_void_element(std::string_view name) {
  return std::find(std::begin(kVoidElements), std::end(kVoidElements), name) !=
         std::end(kVoidElements);
}

bool separates_words(std::string_view name) {
  return std::binary_search(std::begin(kSeparating), std::end(kSeparating), name);
}

}  // namespace xlate
