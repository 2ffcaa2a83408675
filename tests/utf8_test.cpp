// Tests how text that is not valid UTF-8 is repaired, with the examples of the Unicode standard and
// against a second decoder.
#include "tokenization/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support.h"

namespace xlate {
namespace {

using namespace std::string_literals;

const std::string kMark = "\xEF\xBF\xBD";  // U+FFFD

std::string repeat(const std::string& text, int times) {
  std::string all;
  for (; times > 0; --times) all += text;
  return all;
}

std::string made_valid(std::string text) {
  make_valid_utf8(text);
  return text;
}

// Returns the length of the character that the text begins with, or 0 where it begins with none.
// This is a second decoder by the definition of UTF-8: shortest form, no surrogates, at most
// U+10FFFF.
std::size_t character(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i]));
  };
  const std::size_t length = byte(0) < 0x80       ? 1
                             : byte(0) >> 5 == 6  ? 2
                             : byte(0) >> 4 == 14 ? 3
                             : byte(0) >> 3 == 30 ? 4
                                                  : 0;
  if (length < 2 || length > text.size()) return length == 1 ? 1 : 0;
  std::uint32_t code = byte(0) & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (byte(i) >> 6 != 2) return 0;
    code = code << 6 | (byte(i) & 63);
  }
  const std::uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  return code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : length;
}

bool is_valid(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = character(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string encoded(std::uint32_t code) {
  const auto part = [&](int shift) { return static_cast<char>(0x80 | (code >> shift & 63)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), part(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), part(6), part(0)};
  return {static_cast<char>(0xF0 | code >> 18), part(12), part(6), part(0)};
}

// The examples are in Unicode 15, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, MaximalSubpartsOfTheStandard) {
  EXPECT_EQ(made_valid("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), repeat(kMark, 8) + "A");
  EXPECT_EQ(made_valid("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), repeat(kMark, 8) + "A");
  EXPECT_EQ(made_valid("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            repeat(kMark, 5) + "A" + repeat(kMark, 2) + "B");
  EXPECT_EQ(made_valid("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), repeat(kMark, 4) + "A");
}

// Older editions of the Unicode standard gave this example, 61 F1 80 80 E1 80 C2 62 80 63 80 BF 64,
// where section 5.22 now stands.
TEST(Utf8, AMixedLine) {
  EXPECT_EQ(made_valid("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a" + repeat(kMark, 3) + "b" + kMark + "c" + repeat(kMark, 2) + "d");
}

TEST(Utf8, CutAtTheEnd) {
  for (const std::string whole : {"\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
    EXPECT_EQ(made_valid("x" + whole), "x" + whole);
    for (std::size_t cut = 1; cut < whole.size(); ++cut) {
      const std::string part = "eight or more " + whole.substr(0, cut);
      EXPECT_EQ(made_valid(part), "eight or more " + kMark) << "one mark for all that is left";
      EXPECT_EQ(without_cut_character(part), "eight or more ");
    }
    EXPECT_EQ(without_cut_character("x" + whole), "x" + whole);
  }
  EXPECT_EQ(without_cut_character(""), "");
  EXPECT_EQ(without_cut_character("abc"), "abc");
  EXPECT_EQ(without_cut_character("\xE2"), "");
  // No following byte could complete a character here.
  EXPECT_EQ(without_cut_character("\x80\x80\x80\x80"), "\x80\x80\x80\x80");
}

TEST(Utf8, EveryCharacterIsValidAndNoSurrogateIs) {
  for (std::uint32_t code = 0; code <= 0x10FFFF; ++code) {
    std::string text = encoded(code);
    const bool surrogate = code >= 0xD800 && code < 0xE000;
    ASSERT_EQ(make_valid_utf8(text), surrogate) << code;
    ASSERT_EQ(text, surrogate ? repeat(kMark, 3) : encoded(code)) << code;
  }
  EXPECT_EQ(made_valid(encoded(0x110000)), repeat(kMark, 4));
}

TEST(Utf8, EveryPairOfBytes) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string pair{static_cast<char>(first), static_cast<char>(second)};
      std::string text = "padding." + pair + "x";
      const bool changed = make_valid_utf8(text);
      ASSERT_TRUE(is_valid(text)) << first << " " << second;
      ASSERT_EQ(changed, !is_valid(pair)) << first << " " << second;
      ASSERT_EQ(text.substr(0, 8), "padding.");
      ASSERT_EQ(text.back(), 'x');
    }
  }
}

// The bytes are such that they often form characters, at any alignment. The result is valid, valid
// parts survive, and a second repair changes nothing.
TEST(Utf8, RandomBytes) {
  test::Random random(9);
  const std::string likely =
      "aZ \x80\xBF\xC2\xC3\xE0\xE2\xED\xEF\xF0\xF4\xF5\xFF\x9F\xA0\x90\x8F"s + '\0';
  int repaired = 0;
  for (int i = 0; i < 100'000; ++i) {
    std::string text;
    for (int n = test::whole(random, 0, 24); n > 0; --n) {
      text += random() % 4 == 0 ? static_cast<char>(random()) : likely[random() % likely.size()];
    }
    const std::string before = text;
    const bool changed = make_valid_utf8(text);
    repaired += changed;
    ASSERT_TRUE(is_valid(text));
    ASSERT_EQ(changed, !is_valid(before));
    if (!changed) {
      ASSERT_EQ(text, before);
    }
    std::string again = text;
    ASSERT_FALSE(make_valid_utf8(again));
    ASSERT_EQ(again, text);
    // All characters that were whole before are still there, in order.
    std::string_view rest = text;
    for (std::string_view in = before; !in.empty();) {
      const std::size_t length = character(in);
      if (length > 0) {
        const std::size_t at = rest.find(in.substr(0, length));
        ASSERT_NE(at, std::string_view::npos);
        rest.remove_prefix(at + length);
      }
      in.remove_prefix(std::max<std::size_t>(length, 1));
    }
  }
  EXPECT_GT(repaired, 50'000);
}

TEST(Utf8, RandomValidTextIsUnchanged) {
  test::Random random(10);
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (int n = test::whole(random, 0, 20); n > 0; --n) {
      const std::uint32_t code = random() % (0x100u << random() % 13);
      if (code <= 0x10FFFF && (code < 0xD800 || code >= 0xE000)) text += encoded(code);
    }
    const std::string before = text;
    ASSERT_FALSE(make_valid_utf8(text));
    ASSERT_EQ(text, before);
    const std::string_view kept = without_cut_character(text);
    ASSERT_EQ(kept, before);
  }
}

}  // namespace
}  // namespace xlate
