// Tests where sentences and lines are cut, how they are joined, and what the parts of a line
// become.
#include "app/line_splitter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "app/line_parts.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

using Texts = std::vector<std::string>;

Texts sentences_of(const std::string& text) {
  Texts sentences;
  for (const std::string_view sentence : LineSplitter(1).sentences(text))
    sentences.emplace_back(sentence);
  return sentences;
}

// Cuts a text at all of these places.
Texts cut(const std::string& text, const std::vector<std::size_t>& ends) {
  Texts parts;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    parts.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  if (begin < text.size()) parts.push_back(text.substr(begin));
  return parts;
}

std::string joined(const Texts& sentences) {
  std::string text;
  for (const std::string& sentence : sentences) append_sentence(text, sentence);
  return text;
}

TEST(Sentences, AreThoseOfUnicode) {
  EXPECT_EQ(sentences_of("One. Two?  \"Three!\" (Four.) five"),
            (Texts{"One.", "Two?", "\"Three!\"", "(Four.) five"}));
  EXPECT_EQ(sentences_of("It is 3.4 of the c.d. etc. and more."),
            (Texts{"It is 3.4 of the c.d. etc. and more."}));
  EXPECT_EQ(sentences_of("今日は。明日！「はい。」"), (Texts{"今日は。", "明日！", "「はい。」"}));
  EXPECT_EQ(sentences_of("यह है। वह है।"), (Texts{"यह है।", "वह है।"}));
  EXPECT_EQ(sentences_of("One\nTwo\u2029Three"), (Texts{"One", "Two", "Three"}));
  EXPECT_EQ(sentences_of(" \t "), Texts{});
  EXPECT_EQ(sentences_of(""), Texts{});
  EXPECT_EQ(sentences_of(std::string("a. \0B.", 6)), (Texts{"a.", std::string("\0B.", 3)}));
}

TEST(Sentences, OpeningMarksBelongToTheNextOne) {
  EXPECT_EQ(sentences_of("他来。“好。”（她去。）"), (Texts{"他来。", "“好。”", "（她去。）"}));
  EXPECT_EQ(sentences_of("„Er kam.“ Sie ging.(«"), (Texts{"„Er kam.“", "Sie ging.(«"}));
}

TEST(Sentences, AbbreviationsEndThem) {
  EXPECT_EQ(sentences_of("Mr. Smith came."), (Texts{"Mr.", "Smith came."}));
}

TEST(Sentences, ClausesEndBehindMarks) {
  const std::string text = "He \"came,\" at 1,000; she – left: a-b, c";
  EXPECT_EQ(cut(text, clause_ends(text)),
            (Texts{"He \"came,\"", " at 1,000;", " she –", " left:", " a-b,", " c"}));
  const std::string wide = "他来了，她走了；好、";
  EXPECT_EQ(cut(wide, clause_ends(wide)), (Texts{"他来了，", "她走了；", "好、"}));
  EXPECT_TRUE(clause_ends("").empty());
}

TEST(Sentences, WordsEndBeforeWhiteSpace) {
  const std::string text = "  a  bc\u3000d";
  EXPECT_EQ(cut(text, word_ends(text)), (Texts{"  a", "  bc", "\u3000d"}));
  EXPECT_EQ(cut("aé日😀", character_ends("aé日😀")), (Texts{"a", "é", "日", "😀"}));
}

TEST(Sentences, AreJoinedAsTheScriptJoins) {
  EXPECT_EQ(joined({"One.", "Two."}), "One. Two.");
  EXPECT_EQ(joined({" One. ", " ", "\tTwo."}), " One. Two.");
  EXPECT_EQ(joined({"", "One.", ""}), "One.");
  EXPECT_EQ(joined({"今日は。", "明日！"}), "今日は。明日！");
  EXPECT_EQ(joined({"他说：“好。”", "（她也说。）"}), "他说：“好。”（她也说。）");
  EXPECT_EQ(joined({"「はい」", "彼は"}), "「はい」彼は");
  EXPECT_EQ(joined({"我喜欢。", "GPU 好。"}), "我喜欢。GPU 好。");
  EXPECT_EQ(joined({"The end.", "你好 is a greeting."}), "The end. 你好 is a greeting.");
  EXPECT_EQ(joined({"안녕하세요.", "반갑습니다."}), "안녕하세요. 반갑습니다.");
  EXPECT_EQ(joined({"สวัสดี", "ครับ"}), "สวัสดี ครับ");
  EXPECT_EQ(joined({"\"", "\""}), "\" \"");
  EXPECT_EQ(joined({"Good 😀", "😀 good"}), "Good 😀 😀 good");
}

// Gives each character of a text an id, its bytes, and closes with an end token. Spaces have none.
std::vector<std::int32_t> ids_of(std::string_view text) {
  std::vector<std::int32_t> ids;
  for (; !text.empty(); text.remove_prefix(character_bytes(text))) {
    if (white_space_at_start(text) == 0)
      ids.push_back(static_cast<std::int32_t>(character_bytes(text)));
  }
  if (!ids.empty()) ids.push_back(0);
  return ids;
}

// Returns the texts that parts() asked for and took, by letting each text be its own tokens.
Texts parts_of(const std::string& text, std::size_t longest) {
  Texts seen;
  const auto encode = [&](std::string_view part) {
    std::vector<std::int32_t> ids = ids_of(part);
    seen.emplace_back(part);
    // The last id says which text it is.
    if (!ids.empty()) ids.back() = static_cast<std::int32_t>(seen.size() - 1);
    return ids;
  };
  Texts parts;
  for (const auto& part : LineSplitter(longest).parts(text, ids_of(text).size(), encode)) {
    EXPECT_LE(part.ids.size(), longest);
    parts.push_back(seen[static_cast<std::size_t>(part.ids.back())]);
  }
  return parts;
}

TEST(LineSplitter, TakesAsManySentencesAsFit) {
  EXPECT_EQ(parts_of("Aa. Bb. Cc. Dd. Ee.", 7), (Texts{"Aa. Bb.", "Cc. Dd.", "Ee."}));
  EXPECT_EQ(parts_of("Aa. Bb. Cc. Dd. Ee.", 6), (Texts{"Aa.", "Bb.", "Cc.", "Dd.", "Ee."}));
  EXPECT_EQ(parts_of("Aa. Bb.", 100), (Texts{"Aa. Bb."}));
}

TEST(LineSplitter, CutsLongSentencesAtClausesElseWordsElseAnywhere) {
  EXPECT_EQ(parts_of("Aa. aaa bbb, ccc ddd, eee. Ff.", 9),
            (Texts{"Aa.", "aaa bbb,", "ccc ddd,", "eee. Ff."}));
  EXPECT_EQ(parts_of("aaa bbb ccc ddd", 7), (Texts{"aaa bbb", "ccc ddd"}));
  EXPECT_EQ(parts_of("aaaaaaaaa bb", 5), (Texts{"aaaa", "aaaa", "a bb"}));
  EXPECT_EQ(parts_of("日本日本日", 3), (Texts{"日本", "日本", "日"}));
}

TEST(LineSplitter, SaysWhereNotEvenACharacterFits) {
  EXPECT_THROW(parts_of("ab", 1), Error);
  EXPECT_EQ(parts_of("   ", 1), Texts{});
}

TEST(LineSplitter, LosesNothingOfRandomTexts) {
  std::mt19937 random(1);
  const Texts pieces{"a", "Bcd", "é", "日", "。", "，", ".", "!", ",", " ", "  ", "\u00A0", "\""};
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (auto length = random() % 120; length > 0; --length) text += pieces[random() % 13];
    std::string together;
    for (const std::string& part : parts_of(text, 2 + random() % 20)) together += part;
    EXPECT_EQ(ids_of(together), ids_of(text)) << text;
  }
}

// The sum of the lengths of all texts that are encoded may be a few dozen times that of the line.
TEST(LineSplitter, TakesTimeInProportionToTheLine) {
  for (const std::string unit : {"word ", "x", "Yes. ", "日", " , "}) {
    std::string text;
    while (text.size() < (std::size_t{1} << 20)) text += unit;
    std::size_t encoded = 0;
    const auto encode = [&](std::string_view part) {
      encoded += part.size();
      return ids_of(part);
    };
    const auto tokens = ids_of(text).size();
    const auto parts = LineSplitter(512).parts(text, tokens, encode);
    EXPECT_LT(encoded, 32 * text.size()) << unit;
    EXPECT_LT(parts.size(), tokens / 400) << unit;
  }
}

TEST(LineParts, GiveALineWhenTheLastPartHasCome) {
  Options options;
  options.length_penalty = 2.0f;
  LineParts parts(options);
  parts.expect(7, 3);
  parts.expect(8, 1);
  EXPECT_TRUE(parts.add(7, 2, true, {.text = "Three.", .sum = -3, .tokens = 3}).results.empty());
  EXPECT_EQ(parts.add(8, 0, false, {.text = "Other."}).results.at(0).text, "Other.");
  EXPECT_FALSE(parts.add(7, 0, false, {.text = "One.", .sum = -1, .tokens = 1}).hit_limit_again);
  const auto last = parts.add(7, 1, true, {.text = "Two.", .sum = -2, .tokens = 2});
  ASSERT_EQ(last.results.size(), 1u);
  EXPECT_TRUE(last.hit_limit_again);
  EXPECT_EQ(last.results[0].text, "One. Two. Three.");
  EXPECT_EQ(last.results[0].tokens, 6);
  EXPECT_FLOAT_EQ(last.results[0].sum, -6);
  EXPECT_FLOAT_EQ(last.results[0].score, -6.0f / 36);
}

TEST(LineParts, GiveAllDrawsInTheirOrder) {
  Options options;
  options.num_samples = 2;
  LineParts parts(options);
  parts.expect(0, 2);
  EXPECT_TRUE(parts.add(0, 1, false, {.text = "b"}).results.empty());
  const auto last = parts.add(0, 0, false, {.text = "a"});
  ASSERT_EQ(last.results.size(), 2u);
  EXPECT_EQ(last.results[0].text, "a");
  EXPECT_EQ(last.results[1].text, "b");
}

TEST(LineParts, IdsHaveASpaceBetweenThem) {
  Options options;
  options.length_penalty = 1.0f;
  options.output_format = Format::kIds;
  EXPECT_EQ(join({{.text = "1 2"}, {.text = ""}, {.text = "3"}}, options).text, "1 2 3");
}

}  // namespace
}  // namespace xlate
