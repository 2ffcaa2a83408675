// Tests the steps of tokenization pipelines one by one. The expected values are what tokenizers
// 0.23.3 gives; tests/tokenizer_test.py compares whole tokenizers with it.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <random>

#include "engine/error.h"
#include "tests/model_builder.h"
#include "tokenization/pattern.h"
#include "tokenization/pipeline/added_token_matcher.h"
#include "tokenization/pipeline/bpe.h"
#include "tokenization/pipeline/piece_decoder.h"
#include "tokenization/pipeline/text_normalizer.h"
#include "tokenization/pipeline/word_splitter.h"
#include "tokenization/pipeline/word_unigram.h"
#include "tokenization/utf8.h"

namespace xlate::test {
namespace {

using Texts = std::vector<std::string>;
using Ids = std::vector<std::int32_t>;

Texts words_of(const SplitStep& step, const std::string& text, bool at_start = true) {
  const Words words = WordSplitter({step}, "test").split(text, at_start);
  Texts result;
  for (const Words::Word& word : words.words) result.emplace_back(words.at(word));
  return result;
}

SplitStep split_at(const std::string& pattern, SplitStep::Behavior behavior, bool invert = false) {
  SplitStep step;
  step.kind = SplitStep::Kind::kPattern;
  step.pattern = pattern;
  step.behavior = behavior;
  step.invert = invert;
  return step;
}

Texts matches_of(const std::string& pattern, std::string_view text) {
  Texts result;
  for (const Pattern::Match& match : Pattern(pattern, "test").matches(text))
    result.emplace_back(text.substr(match.begin, match.end - match.begin));
  return result;
}

// Oniguruma and PCRE2 mean other characters by these classes.
TEST(Pattern, ClassesAreOnigurumas) {
  EXPECT_EQ(matches_of("\\s", "a\u180Eb\u0085c\u3000"), (Texts{"\u0085", "\u3000"}));
  EXPECT_EQ(matches_of("[^\\s]+", "a\u180Eb c"), (Texts{"a\u180Eb", "c"}));
  EXPECT_EQ(matches_of("[\\S]+", "a\u180Eb c"), (Texts{"a\u180Eb", "c"}));
  EXPECT_EQ(matches_of("\\w+", "e\u0301\u203F² Ⓐ½①"), (Texts{"e\u0301\u203F²", "Ⓐ½"}));
  EXPECT_EQ(matches_of("[\\w]+", "a²b"), (Texts{"a", "b"}));
  EXPECT_EQ(matches_of("\\p{Han}+", "漢\u3001字"), (Texts{"漢", "字"}));
  EXPECT_EQ(matches_of("\\h+", "12 aG"), (Texts{"12", "a"}));
  EXPECT_EQ(matches_of("\\\\s", "\\s s"), (Texts{"\\s"}));
}

TEST(Pattern, EmptyMatchesAreLeftOut) {
  EXPECT_EQ(matches_of("x*", "axxb\u00E9"), (Texts{"xx"}));
  EXPECT_EQ(matches_of("x", ""), Texts{});
}

TEST(Pattern, WhatIsNotValidIsRefused) {
  for (const char* pattern : {"(", "[a", "\\p{Nothing}", "[a[b]]", "[\\W]", "[a&&b]", "[[:alpha:]]",
                              "[]a]", "[^]a]", "\\Qa"}) {
    try {
      Pattern(pattern, "file");
      ADD_FAILURE() << pattern;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("file: ")) << error.what();
    }
  }
}

// These patterns would take more steps than there are atoms, or megabytes of memory.
TEST(Pattern, ManyStepsEndWithAnError) {
  const std::string letters(10'000, 'a');
  const auto start = std::chrono::steady_clock::now();
  for (const char* pattern : {"(a+)+$", "(?:a|a)*[bc]", "a*a*a*a*a*[bc]", "(?R)?a*?[bc]"}) {
    try {
      Pattern(pattern, "file").matches(letters + "!");
      ADD_FAILURE() << pattern;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("file: matching")) << error.what();
    }
  }
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 60);
}

// A place that takes many steps is tried again with more of them.
TEST(Pattern, PlacesThatTakeManySteps) {
  const std::string blanks(4000, ' ');
  EXPECT_EQ(matches_of("\\s+$", blanks + "x" + blanks), Texts{blanks});
  EXPECT_EQ(matches_of("\\s*[\\r\\n]+|x", blanks + "x\n"), (Texts{"x", "\n"}));
  EXPECT_EQ(matches_of("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", blanks + "x"),
            (Texts{blanks.substr(1), " "}));
  EXPECT_EQ(matches_of("(?:b|\u00E9|\u00E9)*c|d",
                       "\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9"
                       "d"),
            Texts{"d"});
}

TEST(WordSplitter, Behaviors) {
  using Behavior = SplitStep::Behavior;
  const std::string text = "-a--b-";
  EXPECT_EQ(words_of(split_at("-", Behavior::kRemoved), text), (Texts{"a", "b"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kIsolated), text),
            (Texts{"-", "a", "-", "-", "b", "-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kMergedWithPrevious), text),
            (Texts{"-", "a-", "-", "b-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kMergedWithNext), text),
            (Texts{"-a", "-", "-b", "-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kContiguous), text),
            (Texts{"-", "a", "--", "b", "-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kRemoved, true), text), (Texts{"-", "-", "-", "-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kMergedWithPrevious, true), text),
            (Texts{"-a", "-", "-b", "-"}));
  EXPECT_EQ(words_of(split_at("-", Behavior::kIsolated), ""), Texts{});
}

TEST(WordSplitter, Metaspace) {
  SplitStep step;
  step.kind = SplitStep::Kind::kMetaspace;
  EXPECT_EQ(words_of(step, " "), (Texts{"▁"}));
  EXPECT_EQ(words_of(step, "  "), (Texts{"▁", "▁"}));
  EXPECT_EQ(words_of(step, ""), Texts{});
  EXPECT_EQ(words_of(step, "a ▁b"), (Texts{"▁a", "▁", "▁b"}));
  EXPECT_EQ(words_of(step, "▁the"), (Texts{"▁the"}));
  step.prepend = Prepend::kFirst;
  EXPECT_EQ(words_of(step, "a b"), (Texts{"▁a", "▁b"}));
  EXPECT_EQ(words_of(step, "a b", false), (Texts{"a", "▁b"}));
  step.prepend = Prepend::kNever;
  step.splits = false;
  EXPECT_EQ(words_of(step, "a b"), (Texts{"a▁b"}));
}

TEST(WordSplitter, WhiteSpaceDigitsAndBytes) {
  SplitStep step;
  EXPECT_EQ(words_of(step, " a\u0085b\u3000\u200Bc\x1C d "), (Texts{"a", "b", "\u200Bc\x1C", "d"}));
  step.kind = SplitStep::Kind::kDigits;
  EXPECT_EQ(words_of(step, "a12²b"), (Texts{"a", "12²", "b"}));
  step.individual = true;
  EXPECT_EQ(words_of(step, "a12²b"), (Texts{"a", "1", "2", "²", "b"}));
  step.kind = SplitStep::Kind::kByteLevel;
  step.prefix_space = true;
  EXPECT_EQ(words_of(step, "\ta"), (Texts{" \ta"}));
  EXPECT_EQ(words_of(step, " a"), (Texts{" a"}));
}

NormalizeStep unicode(UnicodeForm form) {
  NormalizeStep step;
  step.kind = NormalizeStep::Kind::kUnicode;
  step.form = form;
  return step;
}

TEST(TextNormalizer, UnicodeForms) {
  const auto form_of = [](UnicodeForm form, std::string_view text) {
    return TextNormalizer({unicode(form)}, {}, "test").normalize(text);
  };
  EXPECT_EQ(form_of(UnicodeForm::kNfc, "e\u0301\uFB01"), "\u00E9\uFB01");
  EXPECT_EQ(form_of(UnicodeForm::kNfd, "\u00E9"), "e\u0301");
  EXPECT_EQ(form_of(UnicodeForm::kNfkc, "e\u0301\uFB01"), "\u00E9fi");
  EXPECT_EQ(form_of(UnicodeForm::kNfkd, "\u00E9\uFB01"), "e\u0301fi");
  // Two marks in turn take no longer than one.
  std::string marks = "a", ordered = "\u1EA1";
  for (int i = 0; i < 100'000; ++i) marks += "\u0301\u0323";
  for (int i = 1; i < 100'000; ++i) ordered += "\u0323";
  for (int i = 0; i < 100'000; ++i) ordered += "\u0301";
  EXPECT_EQ(form_of(UnicodeForm::kNfc, marks), ordered);
  // utf8proc 2.8 alone loses the second character.
  EXPECT_EQ(form_of(UnicodeForm::kNfc, "\uAC00\u11A7\u1100\u1161"), "\uAC00\u11A7\uAC00");
}

TEST(TextNormalizer, OtherSteps) {
  NormalizeStep prepend;
  prepend.kind = NormalizeStep::Kind::kPrepend;
  prepend.text = "▁";
  NormalizeStep replace;
  replace.text = " ";
  replace.with = "▁";
  NormalizeStep blanks;
  blanks.kind = NormalizeStep::Kind::kReplacePattern;
  blanks.text = " {2,}";
  blanks.with = " ";
  NormalizeStep strip;
  strip.kind = NormalizeStep::Kind::kStrip;
  strip.left = strip.right = true;
  const TextNormalizer normalizer({strip, blanks, prepend, replace}, {}, "test");
  EXPECT_EQ(normalizer.normalize("\u3000a   b "), "▁a▁b");
  EXPECT_EQ(normalizer.normalize(" \t"), "");
  EXPECT_EQ(TextNormalizer({prepend}, {}, "test").normalize("▁a"), "▁▁a");
}

// The steps of a damaged file cannot use up the memory.
TEST(TextNormalizer, GrowthIsBounded) {
  NormalizeStep more;
  more.text = "a";
  more.with = std::string(64, 'a');
  NormalizeStep pattern = more;
  pattern.kind = NormalizeStep::Kind::kReplacePattern;
  for (const NormalizeStep& step : {more, pattern}) {
    expect_error([&] { TextNormalizer(std::vector(32, step), {}, "file").normalize("aaa"); },
                 {"file: tokenizer.normalize: a text of 3 bytes grows to ", "at most 4192"});
    EXPECT_EQ(TextNormalizer({step}, {}, "file").normalize("aaa").size(), 192u);
  }
  // This is the character that grows most of all.
  std::string longest;
  for (int i = 0; i < 5000; ++i) longest += "\uFDFA";
  EXPECT_EQ(TextNormalizer({unicode(UnicodeForm::kNfkc)}, {}, "file").normalize(longest).size(),
            11 * longest.size());
}

TEST(PieceDecoder, GrowthIsBounded) {
  DecodeStep more;
  more.kind = DecodeStep::Kind::kReplace;
  more.text = "a";
  more.with = std::string(64, 'a');
  expect_error(
      [&] {
        PieceDecoder(std::vector(32, more), "file").decode({"a", "b", "a"});
      },
      {"file: tokenizer.decode: a text of 3 bytes grows to "});
  EXPECT_EQ(PieceDecoder({more}, "file").decode({"a", "b", "a"}).size(), 129u);
}

TEST(PieceDecoder, Metaspace) {
  DecodeStep step;
  const PieceDecoder decoder({step}, "test");
  EXPECT_EQ(decoder.decode({"▁▁a▁b", "▁the", "▁"}), "ab the ");
  EXPECT_EQ(decoder.decode({"▁", "▁the"}), " the");
  step.prepend = Prepend::kNever;
  EXPECT_EQ(PieceDecoder({step}, "test").decode({"▁a", "▁b"}), " a b");
  EXPECT_EQ(PieceDecoder({}, "test").decode({"a", "b"}), "a b");
}

TEST(PieceDecoder, BytePieces) {
  DecodeStep bytes, strip;
  bytes.kind = DecodeStep::Kind::kByteFallback;
  const std::string bad = "\uFFFD";
  const PieceDecoder decoder({bytes}, "test");
  EXPECT_EQ(decoder.decode({"a", "<0xC3>", "<0xa9>", "b"}), "a\u00E9b");
  EXPECT_EQ(decoder.decode({"<0x61>", "<0xFF>", "<0x62>"}), bad + bad + bad);
  EXPECT_EQ(decoder.decode({"<0x4>", "<0xZZ>"}), "<0x4><0xZZ>");
  strip.kind = DecodeStep::Kind::kStrip;
  strip.text = " ";
  strip.left = 1;
  DecodeStep fuse;
  fuse.kind = DecodeStep::Kind::kFuse;
  EXPECT_EQ(PieceDecoder({bytes, fuse, strip}, "test").decode({"<0x20>", " a"}), " a");
}

TEST(PieceDecoder, ByteLevel) {
  DecodeStep step;
  step.kind = DecodeStep::Kind::kByteLevel;
  const PieceDecoder decoder({step}, "test");
  EXPECT_EQ(decoder.decode({"Hello", "Ġw", "Ã", "¼"}), "Hello w\u00FC");
  EXPECT_EQ(decoder.decode({"Ã", "a"}), "\uFFFDa");
  // A piece with any other character is no bytes.
  EXPECT_EQ(decoder.decode({"<日Ġ>"}), "<日Ġ>");
}

TEST(AddedTokenMatcher, LeftmostLongestAndFlags) {
  AddedToken plain, single, strips;
  plain.id = 1;
  single.id = 2;
  single.single_word = true;
  strips.id = 3;
  strips.strips_left = strips.strips_right = true;
  const AddedTokenMatcher matcher({plain, single, strips}, {"<a>", "abc", "<s>"});
  const auto split = [&](std::string_view text) {
    std::string result;
    for (const auto& stretch : matcher.split(text))
      result += fmt::format("[{}:{}]", stretch.id,
                            text.substr(stretch.begin, stretch.end - stretch.begin));
    return result;
  };
  EXPECT_EQ(split("x<a><a>y"), "[-1:x][1:<a>][1:<a>][-1:y]");
  EXPECT_EQ(split("abc abcd abc"), "[2:abc][-1: abcd ][2:abc]");
  EXPECT_EQ(split("abc² \u200Dabc _abc"), "[2:abc][-1:² \u200Dabc _abc]");
  EXPECT_EQ(split("a\u3000<s> \n<s> b"), "[-1:a][3:\u3000<s> \n][3:<s> ][-1:b]");
  EXPECT_EQ(split(""), "");
  // A token that is white space is found inside of that of the token before it.
  AddedToken tab;
  tab.id = 4;
  tab.strips_right = true;
  const AddedTokenMatcher tabs({tab}, {"\t"});
  EXPECT_EQ(tabs.split("\t  \ta").size(), 3u);
  EXPECT_EQ(tabs.split(std::string(300'000, '\t')).size(), 300'000u);
}

TEST(AddedTokenMatcher, SpecialTokensInRanges) {
  AddedToken plain, special, longer;
  plain.id = 1;
  special.id = 2, longer.id = 3;
  special.special = longer.special = true;
  const AddedTokenMatcher matcher({plain, special, longer}, {"<a>", "<s>", "<s><a>"});
  const auto split = [&](std::string_view text, const std::vector<TextRange>& ranges) {
    std::string result;
    for (const auto& stretch : matcher.split(text, ranges))
      result += fmt::format("[{}:{}]", stretch.id,
                            text.substr(stretch.begin, stretch.end - stretch.begin));
    return result;
  };
  EXPECT_FALSE(matcher.has_only_special());
  EXPECT_TRUE(AddedTokenMatcher({special}, {"<s>"}).has_only_special());
  EXPECT_EQ(split("<s><a>", {}), "[-1:<s>][1:<a>]");
  EXPECT_EQ(split("<s><a>", {{0, 6}}), "[3:<s><a>]");
  EXPECT_EQ(split("<s><a>", {{0, 5}}), "[2:<s>][1:<a>]");
  // A token that goes over the end of a range is none, even where another range follows.
  EXPECT_EQ(split("<s>", {{0, 2}, {2, 3}}), "[-1:<s>]");
  EXPECT_EQ(split("<s><s><s>", {{0, 3}, {6, 9}}), "[2:<s>][-1:<s>][2:<s>]");
}

// A vocabulary, and the merges that make each longer piece of it of two shorter ones, at random.
struct RandomBpe {
  explicit RandomBpe(unsigned seed, bool byte_level) {
    std::mt19937 random(seed);
    Texts texts{"<unk>"};
    for (const char* letter : {"a", "b", "c", "d"}) texts.emplace_back(letter);
    std::string merges;
    while (texts.size() < 60) {
      const std::size_t left = 1 + random() % (texts.size() - 1),
                        right = 1 + random() % (texts.size() - 1);
      const std::string merged = texts[left] + texts[right];
      if (merged.size() > 8 || std::find(texts.begin(), texts.end(), merged) != texts.end())
        continue;
      rules.push_back({texts[left], texts[right]});
      for (const std::size_t id : {left, right, texts.size()})
        append_number(merges, static_cast<std::int32_t>(id));
      texts.push_back(merged);
    }
    table = pieces_table(texts);
    vocabulary.emplace(table, static_cast<std::int64_t>(texts.size()),
                       Vocabulary::Lookup::kBothWays, "test");
    pieces.emplace(*vocabulary, Ids{0});
    SegmentModel settings;
    settings.kind = SegmentModel::Kind::kBpe;
    settings.unknown = 0;
    bpe.emplace(settings, *pieces, merges, byte_level, "test");
  }
  // Applies the rules in their order, each everywhere from the left, until none applies.
  Texts naive(const std::string& word) const {
    Texts symbols;
    for (const char c : word) symbols.emplace_back(1, c);
    while (true) {
      std::size_t best = rules.size(), place = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        for (std::size_t rank = 0; rank < best; ++rank) {
          if (rules[rank] == std::pair(symbols[i], symbols[i + 1])) best = rank, place = i;
        }
      }
      if (best == rules.size()) return symbols;
      symbols[place] += symbols[place + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
  }
  std::string table;
  std::vector<std::pair<std::string, std::string>> rules;
  std::optional<Vocabulary> vocabulary;
  std::optional<Pieces> pieces;
  std::optional<Bpe> bpe;
};

// Short and long words go different ways.
TEST(Bpe, AsAppliedOneByOne) {
  std::mt19937 random(7);
  for (unsigned seed = 0; seed < 20; ++seed) {
    const RandomBpe model(seed, seed % 2 == 1);
    for (int i = 0; i < 40; ++i) {
      std::string word(1 + random() % 90, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 4);
      Ids ids{42};
      model.bpe->segment(word, ids);
      Texts found;
      for (std::size_t k = 1; k < ids.size(); ++k)
        found.emplace_back(model.vocabulary->piece_of(ids[k]));
      ASSERT_EQ(found, model.naive(word)) << word;
      EXPECT_EQ(ids[0], 42);
    }
  }
}

struct TinyVocabulary {
  explicit TinyVocabulary(const Texts& texts, const Ids& special = {0})
      : table(pieces_table(texts)),
        vocabulary(table, static_cast<std::int64_t>(texts.size()), Vocabulary::Lookup::kBothWays,
                   "test"),
        pieces(vocabulary, special) {}
  std::string table;
  Vocabulary vocabulary;
  Pieces pieces;
};

TEST(Bpe, UnknownCharacters) {
  const TinyVocabulary tiny({"<unk>", "a", "b", "ab", "<0xC3>", "<0xA8>"});
  std::string merges;
  for (const std::int32_t id : {1, 2, 3}) append_number(merges, id);
  const auto segment = [&](SegmentModel settings, std::string_view word) {
    settings.kind = SegmentModel::Kind::kBpe;
    Ids ids;
    Bpe(settings, tiny.pieces, merges, false, "test").segment(word, ids);
    return ids;
  };
  SegmentModel settings;
  EXPECT_EQ(segment(settings, "axb"), (Ids{3}));  // Without an unknown id the gap closes.
  settings.unknown = 0;
  EXPECT_EQ(segment(settings, "axyb"), (Ids{1, 0, 0, 2}));
  settings.fuse_unknown = true;
  EXPECT_EQ(segment(settings, "axyb"), (Ids{1, 0, 2}));
  settings.byte_fallback = true;
  EXPECT_EQ(segment(settings, "a\u00E8"), (Ids{1, 4, 5}));
  EXPECT_EQ(segment(settings, "\u00E9\u00E8\u00E9"), (Ids{4, 5, 0}));
  settings.whole_words = true;
  EXPECT_EQ(segment(settings, "<unk>").size(), 1u);
  EXPECT_EQ(segment(settings, "ab"), (Ids{3}));
}

TEST(Bpe, MergesThatDoNotFitAreRefused) {
  const TinyVocabulary tiny({"<unk>", "a"});
  std::string merges;
  for (const std::int32_t id : {1, 1, 2}) append_number(merges, id);
  SegmentModel settings;
  EXPECT_THROW(Bpe(settings, tiny.pieces, merges, false, "test"), Error);
  EXPECT_THROW(Bpe(settings, tiny.pieces, "abc", false, "test"), Error);
}

TEST(WordUnigram, ScoresTiesAndUnknownText) {
  const TinyVocabulary tiny({"<unk>", "a", "aa", "aaa", "b", "</s>", "<0xC3>", "<0xA8>"}, {0, 5});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::string scores;
  for (const double score : {nan, -1.0, -2.0, -3.0, -1.0, nan, -9.0, -9.0})
    append_number(scores, score);
  SegmentModel settings;
  settings.unknown = 0;
  settings.unknown_score = -19;
  const auto segment = [&](std::string_view word) {
    Ids ids;
    WordUnigram(settings, tiny.pieces, scores, "test").segment(word, ids);
    return ids;
  };
  // If sums are equal, the segmentation with the longest last piece is taken.
  EXPECT_EQ(segment("aaaa"), (Ids{1, 3}));
  EXPECT_EQ(segment("axyb"), (Ids{1, 0, 4}));
  // The text of a special token is text.
  EXPECT_EQ(segment("</s>"), (Ids{0}));
  settings.byte_fallback = true;
  EXPECT_EQ(segment("a\u00E8b"), (Ids{1, 6, 7, 4}));
  EXPECT_EQ(segment("\u00E9\u00E8"), (Ids{0}));
  settings.unknown = -1;
  EXPECT_THROW(segment("a"), Error);
  settings.unknown = 0;
  scores.pop_back();
  EXPECT_THROW(segment("a"), Error);
}

}  // namespace
}  // namespace xlate::test
