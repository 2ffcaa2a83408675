// Compiles patterns with PCRE2 and runs them, as machine code where PCRE2 can make it.
#include "tokenization/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <limits>
#include <new>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::uint32_t kOptions =
    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;

// Patterns of real tokenizers take few steps at a place of a text. A place that takes more is tried
// with more and more of them, each time with this factor. All these tries of a text may take so
// many steps for each of its bytes. A run of 4000 spaces is within them, also for a pattern like
// \s+$, which takes as many steps as there are pairs of spaces.
constexpr std::uint32_t kFewSteps = 128, kFactor = 2, kStepsPerByte = 8192;
// The interpreter may take so much memory for what it has to come back to.
constexpr std::uint32_t kHeapKib = 256 << 10;

pcre2_code* compile(const std::string& pattern, int& error) {
  PCRE2_SIZE place = 0;
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions,
                       &error, &place, nullptr);
}

bool is_script(const std::string& name) {
  int error = 0;
  pcre2_code* code = compile("\\p{sc:" + name + "}", error);
  pcre2_code_free(code);
  return code != nullptr;
}

// Returns the classes that Oniguruma means by an escape and PCRE2 does not: U+180E is white space
// to PCRE2 alone, marks are word characters to Oniguruma alone, and \h is a hexadecimal digit. The
// result is empty for all other escapes.
std::string_view classes_of(char escape) {
  switch (escape) {
    case 's':
    case 'S':
      return "\\p{White_Space}";
    case 'w':
    case 'W':
      return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    case 'h':
    case 'H':
      return "0-9A-Fa-f";
    default:
      return {};
  }
}

// Outside of a set, \w of Oniguruma has the fractions and superscript digits of Latin-1, too.
constexpr const char* kLatinNumbers = "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

// Writes a pattern of Oniguruma's so that PCRE2 finds the same matches.
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& name) : rest_(pattern), name_(name) {
    while (!rest_.empty()) {
      const char c = rest_.front();
      if (c == '\\' && rest_.size() > 1) {
        escape();
        continue;
      }
      if (in_class_ && (c == '[' || rest_.starts_with("&&")))
        fail("{}: the pattern '{}' has a set inside of a set", name_, pattern);
      if (!in_class_ && (rest_.starts_with("[]") || rest_.starts_with("[^]")))
        fail("{}: the pattern '{}' has an empty set", name_, pattern);
      in_class_ = c == '[' || (in_class_ && c != ']');
      take(1);
    }
  }
  const std::string& text() const { return text_; }

 private:
  void take(std::size_t bytes) {
    text_ += rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
  }
  void escape() {
    const char kind = rest_[1];
    if (kind == 'Q' || kind == 'E') fail("{}: a pattern has \\{}", name_, kind);
    if (const std::string_view classes = classes_of(kind); !classes.empty()) {
      const bool negated = kind == 'S' || kind == 'W' || kind == 'H';
      if (negated && in_class_ && kind != 'S')
        fail("{}: a pattern has \\{} inside of a set", name_, kind);
      if (kind == 'S')
        text_ += "\\P{White_Space}";
      else if (in_class_)
        text_ += classes;
      else
        text_ += fmt::format("[{}{}{}]", negated ? "^" : "", classes,
                             kind == 'w' || kind == 'W' ? kLatinNumbers : "");
      rest_.remove_prefix(2);
      return;
    }
    const std::size_t end = rest_.find('}');
    if ((kind != 'p' && kind != 'P') || rest_.size() < 3 || rest_[2] != '{' ||
        end == std::string_view::npos) {
      take(2);
      return;
    }
    // PCRE2 takes a script's name for Script_Extensions, and Oniguruma for Script.
    const std::string property(rest_.substr(3, end - 3));
    if (property.size() > 2 && property.front() != '^' && is_script(property)) {
      text_ += fmt::format("\\{}{{sc:{}}}", kind, property);
      rest_.remove_prefix(end + 1);
    } else {
      take(end + 1);
    }
  }

  std::string text_;
  std::string_view rest_;
  std::string name_;
  bool in_class_ = false;
};

std::string message_of(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

struct Free {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// Finds matches in a text, with a bounded number of steps.
class Search {
 public:
  Search(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        steps_left_(std::uint64_t{kStepsPerByte} * text.size()),
        found_(pcre2_match_data_create_from_pattern(code, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    if (!found_ || !context_) throw std::bad_alloc();
    pcre2_set_heap_limit(context_.get(), kHeapKib);
  }

  // Looks for a match from a place on. Returns a number above 0 if there is one, and otherwise an
  // error code of PCRE2.
  int match(std::size_t at) {
    const int count = match(at, kFewSteps, PCRE2_UNSET);
    if (count != PCRE2_ERROR_MATCHLIMIT) return count;
    // PCRE2 counts from 0 at each place where a match may begin, so that each of them is tried by
    // itself.
    for (; at < text_.size(); at += character_bytes(text_.substr(at))) {
      if (const int here = match_here(at); here != PCRE2_ERROR_NOMATCH) return here;
    }
    return PCRE2_ERROR_NOMATCH;
  }
  const PCRE2_SIZE* place() const { return pcre2_get_ovector_pointer(found_.get()); }

 private:
  int match_here(std::size_t at) {
    int count = match(at, kFewSteps, at);
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
    for (std::uint64_t steps = kFewSteps * kFactor;
         count == PCRE2_ERROR_MATCHLIMIT && steps <= std::min(steps_left_, kMost);
         steps *= kFactor) {
      steps_left_ -= steps;
      count = match(at, static_cast<std::uint32_t>(steps), at);
    }
    return count;
  }
  int match(std::size_t at, std::uint32_t steps, PCRE2_SIZE last_begin) {
    pcre2_set_match_limit(context_.get(), steps);
    pcre2_set_offset_limit(context_.get(), last_begin);
    const auto run = [&](std::uint32_t options) {
      return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), at,
                         PCRE2_NO_UTF_CHECK | options, found_.get(), context_.get());
    };
    const int count = run(0);
    // The machine code has a stack of fixed size, and the interpreter takes memory from the heap.
    return count == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : count;
  }

  const pcre2_code* code_;
  std::string_view text_;
  std::uint64_t steps_left_;
  std::unique_ptr<pcre2_match_data, Free> found_;
  std::unique_ptr<pcre2_match_context, Free> context_;
};

}  // namespace

struct Pattern::Code {
  explicit Code(pcre2_code* made) : code(made) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* code;
};

Pattern::Pattern(const std::string& pattern, const std::string& name) : name_(name) {
  int error = 0;
  pcre2_code* code = compile(Translation(pattern, name).text(), error);
  if (!code) fail("{}: the pattern '{}': {}", name, pattern, message_of(error));
  code_ = std::make_unique<const Code>(code);
  // Without machine code, which not every processor or security policy allows, PCRE2 interprets
  // the pattern.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;

std::vector<Pattern::Match> Pattern::matches(std::string_view text) const {
  Search search(code_->code, text);
  std::vector<Match> result;
  for (std::size_t at = 0; at < text.size();) {
    const int count = search.match(at);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) fail("{}: matching a pattern failed: {}", name_, message_of(count));
    const PCRE2_SIZE* place = search.place();
    // With \K a match may begin before the place where the search began.
    const std::size_t begin = std::max(place[0], at);
    if (place[1] > begin) {
      result.push_back({begin, place[1]});
      at = place[1];
    } else {
      at = std::max(at, place[1]);
      if (at < text.size()) at += character_bytes(text.substr(at));
    }
  }
  return result;
}

}  // namespace xlate
