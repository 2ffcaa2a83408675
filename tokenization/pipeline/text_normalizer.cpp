// Applies the steps of normalization one after another.
#include "tokenization/pipeline/text_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "engine/error.h"
#include "tokenization/text_edits.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Kind = NormalizeStep::Kind;

// A cluster of more bytes is replaced character by character.
constexpr std::size_t kLongestCluster = 5;

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

// Returns the bytes of the first extended grapheme cluster of a text that is not empty (Unicode
// Standard Annex 29).
std::size_t cluster_bytes(std::string_view text) {
  if (text.size() == 1 || (is_ascii(text[0]) && is_ascii(text[1])))
    return text.starts_with("\r\n") ? 2 : 1;
  std::size_t end = 0;
  utf8proc_int32_t before = 0, state = 0;
  while (end < text.size()) {
    utf8proc_int32_t code = 0;
    const utf8proc_ssize_t bytes =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + end,
                         static_cast<utf8proc_ssize_t>(text.size() - end), &code);
    // The text is valid, so that only a character that was cut by the caller comes here.
    if (bytes <= 0) return end > 0 ? end : 1;
    if (end > 0 && utf8proc_grapheme_break_stateful(before, code, &state)) return end;
    before = code;
    end += static_cast<std::size_t>(bytes);
  }
  return end;
}

std::string replace(std::string_view text, const Pattern& pattern, std::string_view to,
                    const GrowthLimit& limit) {
  std::string out;
  std::size_t at = 0;
  for (const Pattern::Match& match : pattern.matches(text)) {
    limit.check(out.size() + match.begin - at + to.size());
    out.append(text.substr(at, match.begin - at)).append(to);
    at = match.end;
  }
  limit.check(out.size() + text.size() - at);
  return out.append(text.substr(at));
}

// Returns a part of a text in a form of normalization.
std::string part_to_form(std::string_view text, UnicodeForm form) {
  constexpr auto kCompose = static_cast<int>(UTF8PROC_COMPOSE),
                 kDecompose = static_cast<int>(UTF8PROC_DECOMPOSE),
                 kCompatible = static_cast<int>(UTF8PROC_COMPAT);
  const bool composed = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc,
             compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const int options = static_cast<int>(UTF8PROC_STABLE) | (composed ? kCompose : kDecompose) |
                      (compatible ? kCompatible : 0);
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t bytes = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
      static_cast<utf8proc_ssize_t>(text.size()), &made, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (bytes < 0) {
    if (bytes == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
    fail("normalizing text failed: {}", utf8proc_errmsg(bytes));
  }
  return std::string(reinterpret_cast<const char*>(made), static_cast<std::size_t>(bytes));
}

// Returns the text with the marks behind each base character in their canonical order (Unicode
// Standard, D109). utf8proc does this as well, but in time that grows with the square of the number
// of marks.
std::string with_ordered_marks(std::string_view text) {
  struct Mark {
    int order;
    std::string_view character;
  };
  std::string out;
  std::vector<Mark> marks;
  const auto flush = [&] {
    std::stable_sort(marks.begin(), marks.end(),
                     [](const Mark& a, const Mark& b) { return a.order < b.order; });
    for (const Mark& mark : marks) out += mark.character;
    marks.clear();
  };
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_bytes(text));
    text.remove_prefix(character.size());
    utf8proc_int32_t code = 0;
    utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                     static_cast<utf8proc_ssize_t>(character.size()), &code);
    const int order = utf8proc_get_property(code)->combining_class;
    if (order > 0) {
      marks.push_back({order, character});
      continue;
    }
    flush();
    out += character;
  }
  flush();
  return out;
}

// utf8proc 2.8 drops this character behind a Hangul syllable, although it composes
// with nothing. So the text is cut around it.
constexpr std::string_view kNoConsonant = "\u11A7";

std::string to_form(std::string_view text, UnicodeForm form) {
  // ASCII is the same in every form.
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  const std::string ordered = with_ordered_marks(text);
  text = ordered;
  std::string out;
  for (std::size_t next; (next = text.find(kNoConsonant)) != std::string_view::npos;
       text.remove_prefix(next + kNoConsonant.size())) {
    out.append(part_to_form(text.substr(0, next), form)).append(kNoConsonant);
  }
  return out += part_to_form(text, form);
}

std::string strip(std::string_view text, bool left, bool right) {
  if (left) {
    while (const std::size_t bytes = white_space_at_start(text)) text.remove_prefix(bytes);
  }
  if (right) {
    while (const std::size_t bytes = white_space_at_end(text)) text.remove_suffix(bytes);
  }
  return std::string(text);
}

}  // namespace

TextNormalizer::TextNormalizer(std::vector<NormalizeStep> steps, std::string_view charsmap,
                               const std::string& name)
    : steps_(std::move(steps)),
      name_(name + ": tokenizer.normalize"),
      charsmap_(charsmap, name + ": charsmap") {
  for (const NormalizeStep& step : steps_) {
    std::vector<Pattern>& pattern = patterns_.emplace_back();
    if (step.kind == Kind::kReplacePattern) pattern.emplace_back(step.text, name_);
  }
}

std::string TextNormalizer::normalize(std::string_view text) const {
  std::string result(text);
  const GrowthLimit limit(text.size(), name_);
  for (std::size_t i = 0; i < steps_.size() && !result.empty(); ++i) {
    const NormalizeStep& step = steps_[i];
    switch (step.kind) {
      case Kind::kCharsmap:
        result = apply_charsmap(result, limit);
        break;
      case Kind::kReplace:
        limit.check(bytes_replaced(result, step.text, step.with));
        replace_all(result, step.text, step.with);
        break;
      case Kind::kReplacePattern:
        result = replace(result, patterns_[i].front(), step.with, limit);
        break;
      case Kind::kPrepend:
        result.insert(0, step.text);
        break;
      case Kind::kStrip:
        result = strip(result, step.left, step.right);
        break;
      case Kind::kUnicode:
        result = to_form(result, step.form);
        break;
    }
  }
  return result;
}

// A grapheme cluster of up to five bytes is looked up as a whole first, and each character of the
// others by itself. The shortest rule for the beginning of what is looked up takes the place of all
// of it, so that the rest is lost. SentencePiece itself does neither.
std::string TextNormalizer::apply_charsmap(std::string_view text, const GrowthLimit& limit) const {
  if (charsmap_.empty()) return std::string(text);
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  const auto append = [&](std::string_view part) {
    limit.check(out.size() + part.size());
    out += part;
  };
  while (!text.empty()) {
    const std::size_t bytes = cluster_bytes(text);
    std::string_view cluster = text.substr(0, bytes);
    text.remove_prefix(bytes);
    if (bytes <= kLongestCluster) {
      if (const Charsmap::Rule rule = charsmap_.shortest_rule(cluster); rule.bytes > 0) {
        append(rule.text);
        continue;
      }
    }
    while (!cluster.empty()) {
      const std::string_view character = cluster.substr(0, character_bytes(cluster));
      cluster.remove_prefix(character.size());
      const Charsmap::Rule rule = charsmap_.shortest_rule(character);
      append(rule.bytes > 0 ? rule.text : character);
    }
  }
  // Only a damaged map has replacements that are not valid.
  make_valid_utf8(out);
  return out;
}

}  // namespace xlate
