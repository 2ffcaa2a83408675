// Compiles patterns with PCRE2 and runs them, as machine code where PCRE2 can make it.
#include "tokenization/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr std::uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;

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
      if (c == '[' && !in_class_)
        in_class_ = true;
      else if (c == ']' && in_class_)
        in_class_ = false;
      else if ((c == '[' || rest_.starts_with("&&")) && in_class_ && !rest_.starts_with("[:"))
        fail("{}: the pattern '{}' has a set inside of a set", name_, pattern);
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

struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
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
  const std::unique_ptr<pcre2_match_data, FreeMatch> found(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  if (!found) throw std::bad_alloc();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::vector<Match> result;
  for (std::size_t at = 0; at < text.size();) {
    const auto match = [&](std::uint32_t flags) {
      return pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | flags,
                         found.get(), nullptr);
    };
    int count = match(0);
    // The machine code has a stack of fixed size, and the interpreter takes memory from the heap.
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match(PCRE2_NO_JIT);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) fail("{}: matching a pattern failed: {}", name_, message_of(count));
    const PCRE2_SIZE* place = pcre2_get_ovector_pointer(found.get());
    if (place[1] > place[0]) {
      result.push_back({place[0], place[1]});
      at = place[1];
    } else {
      at = std::max(at, place[1]);
      if (at < text.size()) at += character_bytes(text.substr(at));
    }
  }
  return result;
}

}  // namespace xlate
