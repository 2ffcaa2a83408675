// Implements the cutting of text with ICU's rules for words.
#include "tokenization/text_atoms.h"

#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <memory>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

void check(UErrorCode error) {
  if (U_FAILURE(error)) fail("words: ICU: {}", u_errorName(error));
}

UBreakIterator* open_rules() {
  UErrorCode error = U_ZERO_ERROR;
  UBreakIterator* rules = ubrk_open(UBRK_WORD, "", nullptr, 0, &error);
  check(error);
  return rules;
}

}  // namespace

std::vector<TextAtom> atoms_of(std::string_view text) {
  // Opening the rules takes long, and copying them does not.
  static const std::unique_ptr<UBreakIterator, decltype(&ubrk_close)> rules(open_rules(),
                                                                            ubrk_close);
  UErrorCode error = U_ZERO_ERROR;
  const std::unique_ptr<UBreakIterator, decltype(&ubrk_close)> breaks(
      ubrk_clone(rules.get(), &error), ubrk_close);
  check(error);
  UText reader = UTEXT_INITIALIZER;
  utext_openUTF8(&reader, text.data(), static_cast<std::int64_t>(text.size()), &error);
  check(error);
  const std::unique_ptr<UText, decltype(&utext_close)> open(&reader, utext_close);
  ubrk_setUText(breaks.get(), &reader, &error);
  check(error);
  std::vector<TextAtom> atoms;
  std::size_t begin = 0;
  for (std::int32_t next = ubrk_next(breaks.get()); next != UBRK_DONE;
       next = ubrk_next(breaks.get())) {
    const auto end = static_cast<std::size_t>(next);
    if (white_space_at_start(text.substr(begin, end - begin)) == 0)
      atoms.push_back({{begin, end}, ubrk_getRuleStatus(breaks.get()) >= UBRK_WORD_NONE_LIMIT});
    begin = end;
  }
  return atoms;
}

}  // namespace xlate
