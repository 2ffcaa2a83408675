// Implements the cutting and joining of sentences with ICU's rules and properties of characters.
#include "tokenization/sentences.h"

#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utext.h>
#include <unicode/utf8.h>

#include <memory>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

constexpr UChar32 kEnDash = 0x2013, kHorizontalBar = 0x2015;

void check(UErrorCode error, const char* what) {
  if (U_FAILURE(error)) fail("sentences: ICU: {}: {}", what, u_errorName(error));
}

UChar32 first_character(std::string_view text) {
  UChar32 character = 0;
  U8_GET(reinterpret_cast<const std::uint8_t*>(text.data()), 0, 0,
         static_cast<std::int32_t>(text.size()), character);
  return character;
}

// Returns the last character, and takes it off.
UChar32 take_last(std::string_view& text) {
  auto end = static_cast<std::int32_t>(text.size());
  UChar32 character = 0;
  U8_PREV(reinterpret_cast<const std::uint8_t*>(text.data()), 0, end, character);
  text = text.substr(0, static_cast<std::size_t>(end));
  return character;
}

bool is_wide(UChar32 character) {
  const int width = u_getIntPropertyValue(character, UCHAR_EAST_ASIAN_WIDTH);
  return width == U_EA_WIDE || width == U_EA_FULLWIDTH || width == U_EA_HALFWIDTH;
}

bool is_quotation_mark(UChar32 character) {
  return u_hasBinaryProperty(character, UCHAR_QUOTATION_MARK);
}

bool closes(UChar32 character) {
  return u_charType(character) == U_END_PUNCTUATION || is_quotation_mark(character);
}

bool opens(UChar32 character) {
  return u_charType(character) == U_START_PUNCTUATION || is_quotation_mark(character);
}

// Returns the bytes of the brackets and quotation marks at the end of a text that surely open.
std::size_t opening_bytes(std::string_view text) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t size = rest.size();
    const int type = u_charType(take_last(rest));
    if (type != U_START_PUNCTUATION && type != U_INITIAL_PUNCTUATION) return text.size() - size;
  }
  return text.size();
}

bool ends_clause(UChar32 character) {
  return u_hasBinaryProperty(character, UCHAR_TERMINAL_PUNCTUATION) ||
         (character >= kEnDash && character <= kHorizontalBar);
}

// Returns whether it is a mark of Chinese or Japanese writing. A wide mark has its space in itself.
bool is_cjk_mark(UChar32 character) { return u_ispunct(character) && is_wide(character); }

bool is_cjk(UChar32 character) {
  for (const UScriptCode script :
       {USCRIPT_HAN, USCRIPT_HIRAGANA, USCRIPT_KATAKANA, USCRIPT_BOPOMOFO, USCRIPT_YI}) {
    if (uscript_hasScript(character, script)) return true;
  }
  return is_cjk_mark(character);
}

// Returns the last character that closes nothing, or else the last one. The text is not empty.
UChar32 character_before_seam(std::string_view text) {
  const UChar32 last = take_last(text);
  UChar32 character = last;
  while (closes(character) && !text.empty()) character = take_last(text);
  return closes(character) ? last : character;
}

// Returns the first character that opens nothing, or else the first one. The text is not empty.
UChar32 character_behind_seam(std::string_view text) {
  const UChar32 first = first_character(text);
  for (; !text.empty(); text.remove_prefix(character_bytes(text))) {
    if (const UChar32 character = first_character(text); !opens(character)) return character;
  }
  return first;
}

bool has_space_between(std::string_view text, std::string_view sentence) {
  const UChar32 before = character_before_seam(text);
  return !is_cjk_mark(before) && !(is_cjk(before) && is_cjk(character_behind_seam(sentence)));
}

}  // namespace

SentenceBreaker::SentenceBreaker() {
  UErrorCode error = U_ZERO_ERROR;
  prototype_ = ubrk_open(UBRK_SENTENCE, "", nullptr, 0, &error);
  check(error, "the rules of sentences");
}

SentenceBreaker::~SentenceBreaker() { ubrk_close(prototype_); }

std::vector<std::size_t> SentenceBreaker::ends(std::string_view text) const {
  UErrorCode error = U_ZERO_ERROR;
  const std::unique_ptr<UBreakIterator, decltype(&ubrk_close)> breaks(
      ubrk_clone(prototype_, &error), ubrk_close);
  check(error, "a copy of the rules of sentences");
  UText reader = UTEXT_INITIALIZER;
  utext_openUTF8(&reader, text.data(), static_cast<std::int64_t>(text.size()), &error);
  check(error, "reading a line");
  const std::unique_ptr<UText, decltype(&utext_close)> open(&reader, utext_close);
  ubrk_setUText(breaks.get(), &reader, &error);
  check(error, "reading a line");
  std::vector<std::size_t> ends;
  for (std::int32_t end = ubrk_next(breaks.get()); end != UBRK_DONE; end = ubrk_next(breaks.get()))
    ends.push_back(static_cast<std::size_t>(end) - opening_bytes(text.substr(0, end)));
  if (!ends.empty()) ends.back() = text.size();
  return ends;
}

namespace {

// Calls use(place, rest) for each character, at byte `place`, with the text from there on.
template <class Use>
void for_each_character(std::string_view text, const Use& use) {
  for (std::size_t place = 0; place < text.size();) {
    const std::string_view rest = text.substr(place);
    use(place, rest);
    place += character_bytes(rest);
  }
}

}  // namespace

std::vector<std::size_t> clause_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  // It is a mark that stands before this place with nothing behind it but what closes.
  UChar32 mark = U_SENTINEL;
  for_each_character(text, [&](std::size_t place, std::string_view rest) {
    const UChar32 character = first_character(rest);
    const bool goes_on = ends_clause(character) || closes(character);
    if (mark != U_SENTINEL && !goes_on && (is_wide(mark) || white_space_at_start(rest) > 0))
      ends.push_back(place);
    if (ends_clause(character))
      mark = character;
    else if (!closes(character))
      mark = U_SENTINEL;
  });
  if (mark != U_SENTINEL) ends.push_back(text.size());
  return ends;
}

std::vector<std::size_t> word_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  bool in_word = false;
  for_each_character(text, [&](std::size_t place, std::string_view rest) {
    const bool space = white_space_at_start(rest) > 0;
    if (space && in_word) ends.push_back(place);
    in_word = !space;
  });
  if (in_word) ends.push_back(text.size());
  return ends;
}

std::vector<std::size_t> character_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  for (std::size_t place = 0; place < text.size();) {
    place += character_bytes(text.substr(place));
    ends.push_back(place);
  }
  return ends;
}

void append_sentence(std::string& text, std::string_view sentence) {
  const std::string_view behind = without_leading_space(sentence);
  if (behind.empty()) return;
  const std::string_view before = without_trailing_space(text);
  if (before.empty()) {
    text = sentence;
    return;
  }
  text.resize(before.size());
  if (has_space_between(text, behind)) text += ' ';
  text += behind;
}

}  // namespace xlate
