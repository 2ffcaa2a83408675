// Tests segmentation against SentencePiece 0.2.3 on lines with ties, and against damaged models.
#include "tokenization/sentencepiece/segmenter.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <map>
#include <random>

#include "engine/error.h"
#include "tests/model_builder.h"
#include "tokenization/sentencepiece/normalizer.h"
#include "tokenization/trie.h"

namespace xlate::test {
namespace {

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::string join(const std::vector<int>& ids) { return fmt::format("{}", fmt::join(ids, " ")); }

struct Ties : testing::TestWithParam<const char*> {
  const std::string folder = source_folder() + "/tests/data/";
  const std::string name = GetParam();
  const std::string model =
      file_text(name == "opus-shape" ? folder + "opus-shape/shared/source.spm"
                                     : folder + "segmentation/" + name + ".spm");
  const std::vector<std::string> lines = lines_of(folder + "segmentation/" + name + ".lines"),
                                 ids = lines_of(folder + "segmentation/" + name + ".ids");
};
INSTANTIATE_TEST_SUITE_P(, Ties, testing::Values("en", "de", "bytes", "symbols", "opus-shape"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// SentencePiece 0.2.1 and 0.2.3 segment these lines differently. The expected ids are those of
// 0.2.3, whichever version is installed (tests/data/segmentation/make.py).
TEST_P(Ties, AreBrokenAsByNewerSentencePiece) {
  ASSERT_GE(lines.size(), 30u);
  ASSERT_EQ(lines.size(), ids.size());
  const Segmenter segmenter(model, name);
  for (std::size_t i = 0; i < lines.size(); ++i)
    EXPECT_EQ(join(segmenter.segment(lines[i]).ids), ids[i])
        << "line " << i + 1 << ": " << lines[i];
}

// A model that is cut anywhere, or whose bytes are altered, is refused or read as another model.
// Nothing worse happens.
TEST_P(Ties, DamagedModels) {
  std::mt19937 random(3);
  const auto try_model = [&](const std::string& bytes) {
    try {
      const Segmenter segmenter(bytes, name);
      for (std::size_t i = 0; i < lines.size(); i += 8) segmenter.segment(lines[i]);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  };
  for (int cut = 0; cut < 40; ++cut) try_model(model.substr(0, random() % model.size()));
  for (int round = 0; round < 60; ++round) {
    std::string bytes = model;
    for (int i = 0; i < 4; ++i)
      bytes[random() % (round % 2 ? bytes.size() : std::min<std::size_t>(bytes.size(), 2000))] =
          static_cast<char>(random());
    try_model(bytes);
  }
}

// Returns the fields that make a model one of words (3) or characters (4), which the library
// segments.
std::string of_type(char type) { return std::string("\x12\x02\x18") + type; }

// Returns the field of a normalization with this character map and these flags.
std::string normalization(const std::string& charsmap, const std::string& flags = "") {
  const std::size_t size = charsmap.size();
  const std::string length{static_cast<char>((size & 0x7F) | 0x80),
                           static_cast<char>((size >> 7 & 0x7F) | 0x80),
                           static_cast<char>(size >> 14)};
  const std::size_t all = 4 + size + flags.size();
  return std::string("\x1a") + static_cast<char>((all & 0x7F) | 0x80) +
         static_cast<char>((all >> 7 & 0x7F) | 0x80) + static_cast<char>(all >> 14) + "\x12" +
         length + charsmap + flags;
}

// Returns a character map that has one rule: the letter a becomes a text.
std::string charsmap_of_a(const std::string& text) {
  std::vector<std::uint32_t> units(256, 1u << 31);
  units[0] = 0;
  units['a'] = 'a' | 1u << 8 | 1u << 10;
  std::string map;
  append_number(map, std::uint32_t{1024});
  for (const std::uint32_t unit : units) append_number(map, unit);
  return map + text + '\0';
}

// The library gets normalized text, and gives the same pieces as if it normalized the text itself.
TEST_P(Ties, WordsAndCharactersAreThoseOfTheLibrary) {
  const SentencePieceModel read = SentencePieceModel::read(model, name);
  for (const char type : {'\x03', '\x04'}) {
    for (const bool prefix : {false, true}) {
      for (const bool removes : {false, true}) {
        const std::string flags{'\x18', static_cast<char>(prefix), '\x20',
                                static_cast<char>(removes)};
        const std::string charsmap(read.normalization.charsmap);
        const std::string bytes = model + of_type(type) + normalization(charsmap, flags);
        const Segmenter segmenter(bytes, name);
        sentencepiece::SentencePieceProcessor library;
        ASSERT_TRUE(library.LoadFromSerializedProto(bytes).ok());
        for (const std::string& line : lines) {
          std::vector<int> ids;
          ASSERT_TRUE(library.Encode(" " + line + "  \u00BD ", &ids).ok());
          ASSERT_EQ(join(segmenter.segment(" " + line + "  \u00BD ").ids), join(ids)) << line;
        }
      }
    }
  }
}

// The library never sees a character map, because it does not check what a map says.
TEST(Segmenter, TheLibraryGetsNoCharacterMap) {
  for (const char type : {'\x03', '\x04'}) {
    const std::string bytes =
        sentencepiece_model({"a", "b"}) + of_type(type) + normalization(charsmap_of_a("b"));
    EXPECT_FALSE(SentencePieceModel::read(bytes, "whole").normalization.charsmap.empty());
    const std::string without = SentencePieceModel::without_normalization(bytes, "whole");
    EXPECT_TRUE(SentencePieceModel::read(without, "without").normalization.charsmap.empty());
    EXPECT_FALSE(Segmenter(bytes, "whole").segment("a b").ids.empty());
  }
}

// A line of text for the library is cut at words, so that it has the same pieces as its words. The
// second model has marks behind words. It is one of the library because of its unused piece.
TEST(Segmenter, LongTextForTheLibrary) {
  const std::string words = sentencepiece_model({"\u2581word"}) + of_type(3);
  const std::string pairs =
      sentencepiece_model({"word\u2581", "word", "wor", "wo", "w", "o", "r", "d", "\u2581"}) +
      of_type(2) + "\x0a\x05\x0a\x01z\x18\x05" + "\x12\x03\xC0\x01\x01";
  std::string text;
  for (int i = 0; i < 40'000; ++i) text += "word ";
  for (const std::string& bytes : {words, pairs})
    EXPECT_EQ(Segmenter(bytes, "long").segment(text).ids, std::vector<int>(40'000, 3));
}

// A character map does not make a text much longer than a real one may.
TEST(Segmenter, CharacterMapThatMakesTextLong) {
  for (const char type : {'\x01', '\x02', '\x03', '\x04'}) {
    const std::string bytes = sentencepiece_model({"a", "b"}) + of_type(type) +
                              normalization(charsmap_of_a(std::string(1000, 'b')));
    const Segmenter segmenter(bytes, "longer");
    EXPECT_NO_THROW(segmenter.segment("aaaa"));
    EXPECT_THROW(segmenter.segment(std::string(100, 'a')), Error);
  }
}

// Text that the model does not know is one piece, however long it is. The time grows only linearly
// with its length.
TEST(Segmenter, UnknownText) {
  const std::string bytes = sentencepiece_model({"▁", "a", "b", "▁a"});
  const Segmenter segmenter(bytes, "tiny");
  const Segmentation segments = segmenter.segment("a日本b語");
  EXPECT_EQ(join(segments.ids), "6 0 5 0");
  EXPECT_EQ(segments.unknown, (std::vector<std::string>{"日本", "語"}));
  std::string text;
  while (text.size() < 3'000'000) text += "\u6211\u4eec";
  EXPECT_EQ(join(segmenter.segment(text).ids), "3 0");
  EXPECT_EQ(join(segmenter.segment("").ids), "");
  EXPECT_EQ(join(segmenter.segment("   ").ids), "");
}

// Where scores are equal, the path whose last piece is longest stays. It is the one found first.
// The text aaa therefore becomes a aa, not aa a.
TEST(Segmenter, ATieByHand) {
  std::string model;
  const auto add = [&](const std::string& piece, float score, int type) {
    std::string message = "\x0a" + std::string(1, static_cast<char>(piece.size())) + piece + '\x15';
    append_number(message, score);
    message += std::string("\x18") + static_cast<char>(type);
    model += "\x0a" + std::string(1, static_cast<char>(message.size())) + message;
  };
  add("<unk>", 0, 2), add("▁", -1, 1), add("a", -2, 1), add("aa", -3, 1);
  const Segmenter segmenter(model, "tie");
  EXPECT_EQ(join(segmenter.segment("aaa").ids), "1 2 3");
  EXPECT_EQ(join(segmenter.segment("aaaaa").ids), "1 2 3 3");
}

// A trie of as many pieces as a multilingual model has is built quickly, and each piece is found
// again.
TEST(Segmenter, ManyPieces) {
  std::mt19937 random(5);
  std::map<std::string, std::int32_t> keys;
  while (keys.size() < 200'000) {
    std::string text;
    for (int i = static_cast<int>(random() % 9); i >= 0; --i)
      text += random() % 3 ? std::string(1, static_cast<char>('a' + random() % 26)) : "\u0431";
    keys.emplace(text, static_cast<std::int32_t>(keys.size()));
  }
  std::vector<Trie::Key> list;
  for (const auto& [text, value] : keys) list.push_back({text, value});
  const Trie trie(list);
  std::size_t found = 0;
  for (const auto& [text, value] : keys) {
    trie.each_prefix(text,
                     [&, wanted = value, bytes = text.size()](std::size_t length, std::int32_t id) {
                       found += length == bytes && id == wanted;
                     });
  }
  EXPECT_EQ(found, keys.size());
}

TEST(Segmenter, ModelsThatAreNone) {
  const auto refuses = [](const std::string& bytes, const char* text) {
    try {
      Segmenter(bytes, "file.spm");
      ADD_FAILURE() << "no error, expected: " << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).rfind("file.spm: ", 0), 0u) << error.what();
    }
  };
  refuses("", "0 pieces");
  refuses("junk", "cut short");
  refuses("\x07", "wire type 7");
  refuses(sentencepiece_model({"a", "a"}), "there twice");
  refuses(sentencepiece_model({""}), "is empty");
  refuses(sentencepiece_model({"a"}) + "\x0a\x05\x0a\x01z\x18\x02", "0 and 4 both stand for");
  refuses(sentencepiece_model({"a"}) + "\x0a\x05\x0a\x01z\x18\x06", "the byte piece 'z'");
  refuses(sentencepiece_model({"a"}) + std::string("\x12\x02\x18\x09", 4), "the model's type is 9");
  refuses(sentencepiece_model({"a"}) + std::string("\x12\x03\x98\x02\x01", 5),
          "a byte has no piece");
  refuses(sentencepiece_model({"a"}) + std::string("\x1a\x04\x12\x02zz", 6), "character map");
}

TEST(Trie, PrefixesAsByBruteForce) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    std::map<std::string, std::int32_t> keys;
    const auto draw = [&](std::size_t longest) {
      std::string text(1 + random() % longest, '\0');
      for (char& c : text) c = static_cast<char>(round % 2 ? random() % 3 + 'a' : random());
      return text;
    };
    for (int i = static_cast<int>(random() % 300); i > 0; --i)
      keys.emplace(draw(6), static_cast<std::int32_t>(keys.size()));
    std::vector<Trie::Key> list;
    for (const auto& [text, value] : keys) list.push_back({text, value});
    const Trie trie(list);
    for (int i = 0; i < 50; ++i) {
      const std::string text = draw(9);
      std::vector<std::pair<std::size_t, std::int32_t>> expected, found;
      for (std::size_t length = 1; length <= text.size(); ++length) {
        if (const auto key = keys.find(text.substr(0, length)); key != keys.end())
          expected.emplace_back(length, key->second);
      }
      trie.each_prefix(
          text, [&](std::size_t length, std::int32_t value) { found.emplace_back(length, value); });
      ASSERT_EQ(found, expected) << "round " << round;
      ASSERT_EQ(trie.longest_prefix(text), expected.empty() ? 0 : expected.back().first);
    }
  }
  EXPECT_EQ(Trie().longest_prefix("a"), 0u);
}

}  // namespace
}  // namespace xlate::test
