// Tests the reading of HTML, and the placing of its tags in translations that are aligned by hand.
#include "tokenization/markup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tokenization/character_references.h"
#include "tokenization/markup_writer.h"

namespace xlate {
namespace {

using namespace std::string_literals;

std::vector<std::string> tags_of(const std::string& line) {
  std::vector<std::string> tags;
  for (const MarkupTag& tag : read_markup(line).tags)
    tags.push_back(line.substr(tag.bytes.begin, tag.bytes.end - tag.bytes.begin));
  return tags;
}

std::string text_of(const std::string& line) { return read_markup(line).text; }

std::vector<TextRange> words_of(std::string_view text) {
  std::vector<TextRange> words;
  for (std::size_t begin = 0; (begin = text.find_first_not_of(' ', begin)) < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    words.push_back({begin, end});
    begin = end;
  }
  return words;
}

// Returns a translation with the tags of a line. Word i of the translation is aligned with word
// aligned[i] of the line's text, or with none where that is −1.
std::string placed(const std::string& line, const std::string& translation,
                   const std::vector<int>& aligned, std::size_t read = std::string::npos) {
  const Markup markup = read_markup(line);
  const std::vector<TextRange> source = words_of(markup.text), target = words_of(translation);
  EXPECT_EQ(aligned.size(), target.size());
  std::vector<TextLink> links;
  for (std::size_t i = 0; i < aligned.size(); ++i) {
    if (aligned[i] >= 0) links.push_back({source[static_cast<std::size_t>(aligned[i])], target[i]});
  }
  return with_markup(markup, line, translation, links, std::min(read, markup.text.size()));
}

// Word i of the translation is aligned with word i of the line's text, if there is one.
std::string in_order(const std::string& line, const std::string& translation) {
  std::vector<int> aligned(words_of(translation).size(), -1);
  const std::size_t words = words_of(text_of(line)).size();
  std::iota(aligned.begin(), aligned.begin() + std::min(words, aligned.size()), 0);
  return placed(line, translation, aligned);
}

TEST(CharacterReference, IsANameOrANumber) {
  for (const auto& [text, character] : std::map<std::string, std::string>{{"&amp;", "&"},
                                                                          {"&eacute;", "é"},
                                                                          {"&apos;", "'"},
                                                                          {"&zwnj;", "\u200C"},
                                                                          {"&AElig;", "Æ"},
                                                                          {"&#228;", "ä"},
                                                                          {"&#x1F600;", "😀"},
                                                                          {"&#X41;", "A"},
                                                                          {"&#10;", " "}}) {
    const auto reference = read_reference(text + "x");
    ASSERT_TRUE(reference) << text;
    EXPECT_EQ(reference->character, character);
    EXPECT_EQ(reference->bytes, text.size());
  }
  for (const char* text : {"&", "&amp", "&amp ;", "& amp;", "&nosuch;", "&#;", "&#x;", "&#1114112;",
                           "&#xD800;", "&#0;", "&#150;", "&#99999999999;", "&#-1;", "a&amp;"})
    EXPECT_FALSE(read_reference(text)) << text;
}

TEST(Markup, HasTagsAndText) {
  const std::string line =
      "<p class=x ID='a>b' data-q=\"<i>\" hidden>A <BR/>b<!-- <b> --> c</P ><img src=a/b>";
  EXPECT_EQ(tags_of(line),
            (std::vector<std::string>{"<p class=x ID='a>b' data-q=\"<i>\" hidden>", "<BR/>",
                                      "<!-- <b> -->", "</P >", "<img src=a/b>"}));
  EXPECT_EQ(text_of(line), "A b c");
  const Markup markup = read_markup(line);
  EXPECT_EQ(markup.tags[0].partner, 3);
  EXPECT_EQ(markup.tags[3].partner, 0);
  EXPECT_EQ(markup.tags[1].partner, -1);
}

TEST(Markup, IsTextWhereItIsMalformed) {
  for (const char* line : {"a < b", "a <b", "x <3 y", "<>", "</>", "</ b>", "<b x=>", "<b x=\"1>",
                           "<b x='1>", "<b \"x\">", "<!-- no end", "<!>", "<! x>", "<b<i", "1<2>1",
                           "</b x>", "<b / x>", "<code a = b </code"}) {
    EXPECT_EQ(tags_of(line).size(), 0u) << line;
    EXPECT_EQ(text_of(line), line);
    EXPECT_EQ(in_order(line, line), line);
  }
  EXPECT_EQ(tags_of("<b <i>x</i>"), (std::vector<std::string>{"<i>", "</i>"}));
  EXPECT_EQ(text_of("<b <i>x</i>"), "<b x");
}

TEST(Markup, HasPartnersThatAreNested) {
  const auto partners = [](const std::string& line) {
    std::vector<int> partners;
    for (const MarkupTag& tag : read_markup(line).tags) partners.push_back(tag.partner);
    return partners;
  };
  EXPECT_EQ(partners("<b><b>x</b></b>"), (std::vector<int>{3, 2, 1, 0}));
  EXPECT_EQ(partners("<b><i>x</b></i>"), (std::vector<int>{2, -1, 0, -1}));
  EXPECT_EQ(partners("</b><b>x"), (std::vector<int>{-1, -1}));
  EXPECT_EQ(partners("<li>a<li>b</ul>"), (std::vector<int>{-1, -1, -1}));
  EXPECT_EQ(partners("<br>x</br>"), (std::vector<int>{-1, -1}));
}

TEST(Markup, SeparatesWordsAtBlocks) {
  EXPECT_EQ(text_of("<td>foo</td><td>bar</td>"), "foo bar");
  EXPECT_EQ(text_of("foo<br>bar"), "foo bar");
  EXPECT_EQ(text_of("foo <br> bar"), "foo  bar");
  EXPECT_EQ(text_of("foo<b>bar</b>"), "foobar");
  EXPECT_EQ(text_of("<script>if (a<b) x()</script>foo<style>p{}</style>"), "foo");
}

TEST(MarkupWriter, PutsTagsAroundTheSameWords) {
  EXPECT_EQ(placed("The <b>red</b> house", "Das rote Haus", {0, 1, 2}), "Das <b>rote</b> Haus");
  EXPECT_EQ(placed("I have <b>seen</b> <i>it</i>", "Ich habe es gesehen", {0, 1, 3, 2}),
            "Ich habe <i>es</i> <b>gesehen</b>");
  EXPECT_EQ(placed("a <b>b <i>c</i> d</b> e", "E D C B A", {4, 3, 2, 1, 0}),
            "E <b>D <i>C</i> B</b> A");
  // An outlier is left out.
  EXPECT_EQ(placed("<b>one two</b> three four five", "one two three four uno", {0, 1, 2, 3, 0}),
            "<b>one two</b> three four uno");
  // A gap of words that are not aligned is covered.
  EXPECT_EQ(placed("<b>one two</b> three", "eins so zwei drei", {0, -1, 1, 2}),
            "<b>eins so zwei</b> drei");
}

TEST(MarkupWriter, CoversWholeParents) {
  EXPECT_EQ(placed("<p><b>Hello world</b></p>", "Oh hallo Welt!", {-1, 0, 1}),
            "<p><b>Oh hallo Welt!</b></p>");
}

TEST(MarkupWriter, LeavesMarksWhereTheyWere) {
  EXPECT_EQ(placed("Look (<b>here</b>).", "Schau (hier).", {0, 1}), "Schau (<b>hier</b>).");
  EXPECT_EQ(placed("<b>Note:</b> go.", "Hinweis: geh.", {0, 1}), "<b>Hinweis:</b> geh.");
  EXPECT_EQ(placed("The <code>foo()</code>, then", "Das foo(), dann", {0, 1, 2}),
            "Das <code>foo()</code>, dann");
  EXPECT_EQ(placed("The <code>grid</code> element", "Das grid-Element", {0, 1}),
            "Das <code>grid</code>-Element");
}

TEST(MarkupWriter, FindsCopies) {
  EXPECT_EQ(placed("Call <code>getElement</code> now", "Jetzt getElement rufen", {2, 0, 0}),
            "Jetzt <code>getElement</code> rufen");
}

TEST(MarkupWriter, NeverSplitsAWord) {
  EXPECT_EQ(in_order("an <b>un</b>able man", "ein unfähiger Mann"), "ein <b>unfähiger</b> Mann");
}

TEST(MarkupWriter, KeepsTagsThatStandAlone) {
  EXPECT_EQ(in_order("one<br>two", "eins zwei"), "eins<br>zwei");
  EXPECT_EQ(in_order("one <br> two", "eins zwei"), "eins <br> zwei");
  EXPECT_EQ(in_order("one <br>two", "eins zwei"), "eins <br>zwei");
  EXPECT_EQ(in_order("one<br> two", "eins zwei"), "eins<br> zwei");
  EXPECT_EQ(in_order("<img> one two<hr>", "eins zwei"), "<img> eins zwei<hr>");
  EXPECT_EQ(in_order("<p>one <!-- c -->two", "eins zwei"), "<p>eins <!-- c -->zwei");
  EXPECT_EQ(in_order("one two</p>", "eins zwei"), "eins zwei</p>");
  EXPECT_EQ(in_order("a <b>one<br>two</b> b", "a eins zwei b"), "a <b>eins<br>zwei</b> b");
  EXPECT_EQ(placed("one</i> two", "zwei eins", {1, 0}), "zwei eins</i>");
  EXPECT_EQ(placed("one <i>two", "zwei eins", {1, 0}), "<i>zwei eins");
}

TEST(MarkupWriter, LosesNoPair) {
  EXPECT_EQ(in_order("one <a id=x></a>two", "eins zwei"), "eins <a id=x></a>zwei");
  EXPECT_EQ(placed("one <b>so</b> two", "eins zwei", {0, 2}), "eins <b>zwei</b>");
  EXPECT_EQ(placed("<b>one</b> <i>two</i>", "", {}), "<b></b> <i></i>");
  // What was cut off stands at the end.
  EXPECT_EQ(placed("one <b>two</b> <i>three</i>", "eins zwei", {0, 1}, 7),
            "eins <b>zwei</b> <i></i>");
}

TEST(MarkupWriter, KeepsInvisibleCharactersBehindAnAddedSpace) {
  EXPECT_EQ(in_order("a<br>\u200Fb", "a \u200Fb"), "a<br>\u200Fb");
}

TEST(MarkupWriter, WritesReferencesAsTheLineDid) {
  EXPECT_EQ(in_order("a &amp; <b>b</b>", "a & b"), "a &amp; <b>b</b>");
  EXPECT_EQ(in_order("a & <b>b</b>", "a & b"), "a & <b>b</b>");
  EXPECT_EQ(in_order("a &lt; b > c", "a < b > c"), "a &lt; b > c");
  EXPECT_EQ(in_order("a < b", "a < <b>"), "a < &lt;b&gt;");
  // If only the second one were written as a reference, the first would begin a tag.
  EXPECT_EQ(in_order("> <b <c", "> <b <c>"), "> &lt;b &lt;c>");
  EXPECT_EQ(in_order("AT&T", "&lt;"), "&amp;lt;");
  EXPECT_EQ(in_order("a b", "a & b\u00A0c"), "a &amp; b&nbsp;c");
  EXPECT_EQ(in_order("&eacute;", "é"), "é");
  EXPECT_EQ(text_of("a <b &amp;&amp; c &eacute;"), "a <b && c é");
  EXPECT_EQ(in_order("a <b &amp;&amp; c", "a <b && c"), "a <b &amp;&amp; c");
}

// Returns the text of a line and of its tags, without white space.
std::string dense(const std::string& text) {
  std::string dense;
  for (const char c : text) {
    if (c != ' ') dense += c;
  }
  return dense;
}

TEST(MarkupWriter, KeepsAllTagsOfRandomLines) {
  const std::vector<std::string> pieces{"<b>",  "</b>",     "<i a='>'>", "</i>", "<br>",  "<p>",
                                        "</p>", "<!--x-->", "one",       "two",  "three", " ",
                                        " ",    ".",        "(",         ")",    "&amp;", "<",
                                        "&",    "é",        "<td>",      "</td>"};
  const std::vector<std::string> words{"eins", "zwei", "one", "drei.", "(vier)", "& b", "fünf"};
  std::mt19937 random(1);
  const auto draw = [&](std::size_t most) { return random() % most; };
  for (int round = 0; round < 3000; ++round) {
    std::string line, translation;
    for (std::size_t i = draw(25); i > 0; --i) line += pieces[draw(pieces.size())];
    for (std::size_t i = draw(12); i > 0; --i)
      translation += (translation.empty() ? "" : " ") + words[draw(words.size())];
    const std::size_t source_words = words_of(text_of(line)).size();
    std::vector<int> aligned;
    for (std::size_t i = words_of(translation).size(); i > 0; --i)
      aligned.push_back(static_cast<int>(draw(source_words + 1)) - 1);
    const std::string out = placed(line, translation, aligned);
    auto before = tags_of(line), after = tags_of(out);
    std::sort(before.begin(), before.end());
    std::sort(after.begin(), after.end());
    ASSERT_EQ(before, after) << line << "\n" << out;
    ASSERT_EQ(dense(text_of(out)), dense(translation)) << line << "\n" << out;
    std::size_t partners_before = 0, partners_after = 0;
    for (const MarkupTag& tag : read_markup(line).tags) partners_before += tag.partner >= 0;
    for (const MarkupTag& tag : read_markup(out).tags) partners_after += tag.partner >= 0;
    ASSERT_GE(partners_after, partners_before) << line << "\n" << out;
  }
}

TEST(MarkupWriter, TakesTimeInProportionToLongLines) {
  constexpr std::size_t kBytes = std::size_t{1} << 20;
  std::string translation;
  std::vector<int> aligned;
  for (int i = 0; i < 300; ++i) translation += "Wort ";
  for (const char* unit : {"<b>", "<b>x</b>", "<b>x</b> ", "<b> x ", "x</b>", "<!--", "<b a=\"",
                           "<b a='<b b=\"", "<script>", "&#", "<a><b></a>", "x<br>"}) {
    std::string line;
    while (line.size() < kBytes) line += unit;
    const auto start = std::chrono::steady_clock::now();
    const Markup markup = read_markup(line);
    const std::vector<TextRange> source = words_of(markup.text), target = words_of(translation);
    std::vector<TextLink> links;
    for (std::size_t i = 0; i < std::min(source.size(), target.size()); ++i)
      links.push_back({source[i], target[i]});
    const std::size_t read = std::min<std::size_t>(markup.text.size(), 1000);
    const std::string out = with_markup(markup, line, translation, links, read);
    EXPECT_EQ(tags_of(out).size(), markup.tags.size()) << unit;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << unit;
  }
}

}  // namespace
}  // namespace xlate
