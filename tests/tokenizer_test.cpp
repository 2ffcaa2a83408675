// Tests how text becomes ids and ids become text, with the converted opus-shape models, and with a
// tiny model where a case needs it.
#include "tokenization/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "models/load.h"
#include "models/tokenizer_description.h"
#include "tests/model_builder.h"

namespace xlate::test {
namespace {

using Ids = std::vector<std::int32_t>;
const std::string kData = source_folder() + "/tests/data/opus-shape/";

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

struct Converted : testing::TestWithParam<const char*> {
  const ModelFile file = ModelFile::open(fmt::format("{}/{}.bin", models_folder(), GetParam()));
  const Tokenizer tokenizer = load_tokenizer(file);
  const std::int32_t end = file.description().tokens.end,
                     unknown = file.description().tokens.unknown;
  const std::string text_of(const Ids& ids) const { return Tokenizer::write_ids(ids); }
};
INSTANTIATE_TEST_SUITE_P(, Converted, testing::Values("shared", "separate"),
                         [](const auto& info) { return std::string(info.param); });

// The expected ids were written by another SentencePiece, which might break a tie between equal
// scores differently. No such line is known in this file.
TEST_P(Converted, IdsOfEveryLine) {
  const auto lines = lines_of(kData + "input.txt"),
             expected = lines_of(kData + GetParam() + "/source.ids");
  ASSERT_EQ(lines.size(), 200u);
  ASSERT_EQ(expected.size(), 200u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(text_of(tokenizer.encode(lines[i])), expected[i])
        << "line " << i + 1 << ": " << lines[i];
    EXPECT_EQ(text_of(tokenizer.read_ids(expected[i])), expected[i]);
  }
}

// A long text that is cut at spaces has the ids of its sentences in turn.
TEST_P(Converted, LongTextIsTheSameInParts) {
  const Ids line = tokenizer.encode("It was really cheap.");
  std::string text;
  Ids expected;
  while (text.size() < 300'000) {
    text += text.empty() ? "It was really cheap." : " It was really cheap.";
    expected.insert(expected.end(), line.begin(), line.end() - 1);
  }
  expected.push_back(end);
  EXPECT_EQ(tokenizer.encode(text), expected);
  EXPECT_EQ(tokenizer.encode(std::string(200'000, ' ')), Ids{});
}

// Half a megabyte of a script that the model does not know, without a space, takes seconds at most,
// and no character is cut.
TEST_P(Converted, LongTextOfUnknownCharacters) {
  std::string text;
  while (text.size() < 500'000) text += "\u6211\u4eec";
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = tokenizer.encode(text);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
  EXPECT_LE(ids.size(), 32u);
  for (const std::int32_t id : tokenizer.encode("\u6211"))
    EXPECT_NE(std::find(ids.begin(), ids.end(), id), ids.end());
}

TEST_P(Converted, NothingIsNothing) {
  for (const char* text : {"", " ", "   ", "\t", "\xE3\x80\x80"})
    EXPECT_EQ(tokenizer.encode(text), Ids{}) << "'" << text << "'";
  EXPECT_EQ(tokenizer.encode_pieces("  "), Ids{});
  EXPECT_EQ(tokenizer.read_ids(" "), Ids{});
  EXPECT_EQ(tokenizer.decode({}), "");
  EXPECT_EQ(tokenizer.decode_pieces({}), "");
  EXPECT_EQ(Tokenizer::write_ids({}), "");
}

// Joins the pieces of the source side, which are looked up by name again.
TEST_P(Converted, PiecesAndIdsAgree) {
  std::vector<std::string> pieces;
  std::string_view table = file.file("source.pieces");
  while (!table.empty()) {
    std::uint32_t length = 0;
    std::memcpy(&length, table.data(), 4);
    table.remove_prefix(4);
    if (length == 0xFFFFFFFF) length = 0;
    pieces.emplace_back(table.substr(0, length));
    table.remove_prefix(length);
  }
  ASSERT_EQ(static_cast<std::int64_t>(pieces.size()),
            file.description().network.encoder.embedding.vocabulary);
  for (const std::string& line : lines_of(kData + "input.txt")) {
    const Ids ids = tokenizer.encode(line);
    std::string text;
    bool known = true;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      known = known && ids[i] != unknown;
      text += (i ? " " : "") + pieces[static_cast<std::size_t>(ids[i])];
    }
    if (known) {
      EXPECT_EQ(tokenizer.encode_pieces(text), ids) << line;
    }
  }
  EXPECT_EQ(tokenizer.encode_pieces("  nosuchpiece▁  nosuchpiece▁"), (Ids{unknown, unknown, end}));
}

TEST_P(Converted, WordsThatAreNoIds) {
  const std::int64_t last = file.description().network.encoder.embedding.vocabulary - 1;
  EXPECT_EQ(tokenizer.read_ids(fmt::format("  0 {}  7 ", last)),
            (Ids{0, static_cast<std::int32_t>(last), 7}));
  const std::vector<std::string> words{"x",
                                       "1.5",
                                       "-1",
                                       "+1",
                                       "0x1",
                                       "1e1",
                                       "99999999999999999999",
                                       "1\t2",
                                       fmt::format("{}", last + 1)};
  for (const std::string& word : words) {
    expect_error([&] { tokenizer.read_ids("3 " + word + " 4"); },
                 {"'" + word + "'", fmt::format("from 0 to {}", last)});
  }
  expect_error([&] { tokenizer.read_ids(std::string(10'000, '9')); }, {std::string(40, '9') + "'"});
}

TEST_P(Converted, LanguageTokensInFront) {
  const Ids plain = tokenizer.encode("Tom is here.");
  // A language token is looked up as a whole. These models have no token of that name.
  Ids expected{unknown};
  expected.insert(expected.end(), plain.begin(), plain.end());
  EXPECT_EQ(tokenizer.encode(">>xx<< Tom is here."), expected);
  EXPECT_EQ(tokenizer.encode(">>xx<<Tom is here."), expected);
  EXPECT_EQ(tokenizer.encode(">>sr_Latn<< Tom is here."), expected);
  EXPECT_EQ(tokenizer.encode(">>xx<<"), (Ids{unknown, end}));
  // A language token reaches from >> to the first <<, whatever stands between them.
  for (const char* token : {">><<", ">>a<b<<", ">> a whole sentence <<", ">>>><<"})
    EXPECT_EQ(tokenizer.encode(token + std::string(" Tom is here.")), expected) << token;
  // None of these lines begins with a language token.
  for (const char* text : {" >>xx<< Tom", ">>xx< Tom", ">> Tom", "Tom >>xx<<", "<< >> Tom"}) {
    const Ids ids = tokenizer.encode(text);
    EXPECT_GT(ids.size(), 4u) << text;
  }
}

TEST_P(Converted, DecodedLinesAreLines) {
  for (const std::string& line : lines_of(kData + GetParam() + "/greedy.txt"))
    EXPECT_EQ(line.find('\n'), std::string::npos);
  for (std::int32_t id = 0; id < file.description().network.decoder.embedding.vocabulary; ++id) {
    const std::string text = tokenizer.decode({&id, 1}) + tokenizer.decode_pieces({&id, 1});
    ASSERT_EQ(text.find_first_of("\n\r"), std::string::npos) << id;
  }
}

TEST_P(Converted, UnknownTokensAreMarked) {
  const Ids ids{unknown};
  EXPECT_EQ(tokenizer.decode(ids), " ⁇ ");
  EXPECT_EQ(tokenizer.decode_pieces(ids), "<unk>");
}

// The expected values come from transformers (tests/data/variants/make.py), which writes nothing
// for an unknown token.
TEST(AddedTokens, AsInTransformers) {
  const ModelFile file = ModelFile::open(models_folder() + "/added_tokens.bin");
  const Tokenizer tokenizer = load_tokenizer(file);
  const auto cases =
      nlohmann::json::parse(file_text(source_folder() + "/tests/data/variants/tokens.json"));
  ASSERT_GE(cases["encode"].size(), 30u);
  for (const auto& one : cases["encode"])
    EXPECT_EQ(tokenizer.encode(one[0].get<std::string>()), one[1].get<Ids>()) << one[0];
  for (const auto& one : cases["decode"])
    EXPECT_EQ(tokenizer.decode(one[0].get<Ids>()), one[1].get<std::string>()) << one[0];
}

// This is a tokenizer of the tiny model, with the bytes and the file that it refers to.
struct Tiny {
  explicit Tiny(const std::function<void(ModelBuilder&)>& edit = [](ModelBuilder&) {}) {
    ModelBuilder model = tiny_model();
    edit(model);
    bytes = model.bytes();
    file.emplace("tiny.bin", bytes.span());
    tokenizer.emplace(load_tokenizer(*file));
  }
  AlignedBytes bytes;
  std::optional<ModelFile> file;
  std::optional<Tokenizer> tokenizer;
};

TEST(Tokenizer, TheTinyModel) {
  const Tiny tiny;
  EXPECT_EQ(tiny.tokenizer->encode("ab a"), (Ids{5, 4, 5, 0}));  // ▁a b ▁a
  EXPECT_EQ(tiny.tokenizer->encode("b"), (Ids{2, 4, 0}));        // ▁ b
  EXPECT_EQ(tiny.tokenizer->encode("az"), (Ids{5, 1, 0}));
  EXPECT_EQ(tiny.tokenizer->encode(">>xx<< b"), (Ids{6, 2, 4, 0}));
  EXPECT_EQ(tiny.tokenizer->encode(">>yy<< b"), (Ids{1, 2, 4, 0}));
  EXPECT_EQ(tiny.tokenizer->decode(Ids{5, 4, 5}), "ab a");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{5, 4, 5}), "▁a b ▁a");
  EXPECT_EQ(Tokenizer::write_ids(Ids{5, 4, 5}), "5 4 5");
  EXPECT_EQ(tiny.tokenizer->encode_pieces("▁a b <pad> z"), (Ids{5, 4, 7, 1, 0}));
}

// A vocabulary that both sides share has pieces that only the SentencePiece model of the target
// knows.
TEST(Tokenizer, WhatTheModelDoesNotKnowMayBeInTheVocabulary) {
  auto pieces = tiny_pieces();
  pieces[6] = "zz";
  const Tiny tiny([&](ModelBuilder& model) {
    for (const char* name : {"source.pieces", "target.pieces"})
      model.replace_file(name, pieces_table(pieces));
  });
  // These are ▁a and a piece that SentencePiece leaves whole.
  EXPECT_EQ(tiny.tokenizer->encode("azz"), (Ids{5, 6, 0}));
  // There is no such piece.
  EXPECT_EQ(tiny.tokenizer->encode("azzz"), (Ids{5, 1, 0}));
}

TEST(Tokenizer, PiecesOfTheModelThatTheVocabularyLacks) {
  auto pieces = tiny_pieces();
  pieces[5] = "elsewhere";
  const Tiny tiny(
      [&](ModelBuilder& model) { model.replace_file("source.pieces", pieces_table(pieces)); });
  EXPECT_EQ(tiny.tokenizer->encode("ab"), (Ids{1, 4, 0}));
}

TEST(Tokenizer, ALineIsALineWhateverThePieces) {
  auto pieces = tiny_pieces();
  pieces[3] = "x\ny\r\nz";
  pieces[4] = "\n";
  const Tiny tiny(
      [&](ModelBuilder& model) { model.replace_file("target.pieces", pieces_table(pieces)); });
  EXPECT_EQ(tiny.tokenizer->decode(Ids{3, 5, 4}), "x y  z a");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{3, 4}), "x y  z  ");
  const LineRules rules{.newline = "\\n"};
  EXPECT_EQ(tiny.tokenizer->decode(Ids{3, 5, 4}, rules), "x\\ny \\nz a");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{3, 4}, rules), "x\\ny \\nz \\n");
}

// The ids of languages are those of the target vocabulary, which may have more ids than the
// source's.
TEST(Tokenizer, LanguagesInATemplateAreSourceIds) {
  const auto read = [](std::int64_t last_source, const char* item) {
    const nlohmann::json header{{"tokenizer",
                                 {{"model", {{"kind", "sentencepiece"}}},
                                  {"template", {{"before", {item}}, {"after", {0}}}}}}};
    read_tokenizer(Section(header, "tokenizer", "file"), last_source, {{"de", 7}});
  };
  read(7, "source_language");
  expect_error([&] { read(6, "source_language"); }, {"file: ", "'de'", "id 7", "up to 6"});
}

TEST(Tokenizer, TextIsValidWhateverThePieces) {
  auto pieces = tiny_pieces();
  pieces[3] = "x\xC3", pieces[4] = "\xA9\xFF";
  const auto damage = [&](ModelBuilder& model) {
    for (const char* name : {"source.pieces", "target.pieces"})
      model.replace_file(name, pieces_table(pieces));
  };
  const Tiny tiny(damage);
  // The parts of a character that meet are one.
  EXPECT_EQ(tiny.tokenizer->decode(Ids{3, 4, 3}), "x\u00E9\uFFFDx\uFFFD");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{3, 4}), "x\uFFFD \uFFFD\uFFFD");
  // An added token would cut characters of the text.
  expect_error(
      [&] {
        Tiny([&](ModelBuilder& model) {
          damage(model);
          model.header["tokens"]["added"] = {{{"id", 4}}};
        });
      },
      {"tiny.bin: added token 4 is '\uFFFD\uFFFD', expected valid UTF-8"});
}

// A piece that only the SentencePiece model of the other side has keeps its U+2581 in the library.
// In the text it becomes a space, and the text neither begins nor ends with a space.
TEST(Tokenizer, NoMarksInText) {
  auto pieces = tiny_pieces();
  pieces[6] = "▁zz", pieces[7] = "y▁x▁";
  const Tiny tiny([&](ModelBuilder& model) {
    // Its id is a piece like any other here.
    model.header["tokens"].erase("pad");
    model.replace_file("target.pieces", pieces_table(pieces));
  });
  EXPECT_EQ(tiny.tokenizer->decode(Ids{6, 5, 6, 7}), "zz a zzy x");
  EXPECT_EQ(tiny.tokenizer->decode(Ids{2, 2}), "");
  EXPECT_EQ(tiny.tokenizer->decode(Ids{5, 2}), "a");
  EXPECT_EQ(tiny.tokenizer->decode(Ids{5, 2, 2, 6}), "a   zz");
  EXPECT_EQ(tiny.tokenizer->decode(Ids{1, 5, 1}), " ⁇  a ⁇ ");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{6, 7}), "▁zz y▁x▁");
}

TEST(Tokenizer, EndAndPaddingAreNoText) {
  const Tiny tiny;
  EXPECT_EQ(tiny.tokenizer->decode(Ids{7, 5, 0, 7, 5}), "a a");
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{7, 5, 0}), "<pad> ▁a </s>");
}

// OPT's unknown token stands before every text.
TEST(Tokenizer, TokensOfTheTemplateAreNoText) {
  const Tiny tiny([](ModelBuilder& model) {
    model.header["tokenizer"] = {{"model", {{"kind", "sentencepiece"}}},
                                 {"template", {{"before", {1}}, {"after", {0}}}}};
  });
  EXPECT_EQ(tiny.tokenizer->encode("ab"), (Ids{1, 5, 4, 0}));
  EXPECT_EQ(tiny.tokenizer->decode(Ids{1, 5, 4, 0}), "ab");
}

TEST(Tokenizer, SpacesAreCleanedUpWhereTheCheckpointSaysSo) {
  const std::vector<std::string> pieces{"</s>", "<unk>", "▁", ".", "▁'", "▁it", "▁'s", "▁,"};
  const auto text = [&](bool cleaned) {
    const Tiny tiny([&](ModelBuilder& model) {
      model.replace_file("target.pieces", pieces_table(pieces));
      // Its id is a piece like any other here.
      model.header["tokens"].erase("pad");
      if (cleaned) model.header["tokens"]["clean_up_spaces"] = true;
    });
    return tiny.tokenizer->decode(Ids{5, 6, 7, 5, 2, 3, 4, 5});
  };
  EXPECT_EQ(text(false), "it 's , it . ' it");
  EXPECT_EQ(text(true), "it's, it.'it");
}

TEST(Tokenizer, IdsWithoutAPiece) {
  const Tiny tiny([](ModelBuilder& model) {
    std::string table = pieces_table({"</s>", "<unk>", "▁", "a", "b", "▁a"});
    append_number(table, 0xFFFFFFFFu);
    append_number(table, 0xFFFFFFFFu);
    for (const char* name : {"source.pieces", "target.pieces"}) model.replace_file(name, table);
  });
  EXPECT_EQ(tiny.tokenizer->decode(Ids{5, 6, 4, 7}), "ab");
  EXPECT_EQ(tiny.tokenizer->encode("ab"), (Ids{5, 4, 0}));
  EXPECT_EQ(tiny.tokenizer->encode(">>xx<<"), (Ids{1, 0}));
}

TEST(Tokenizer, OfEqualPiecesTheFirst) {
  auto pieces = tiny_pieces();
  pieces[7] = "b";
  const Tiny tiny([&](ModelBuilder& model) {
    for (const char* name : {"source.pieces", "target.pieces"})
      model.replace_file(name, pieces_table(pieces));
  });
  EXPECT_EQ(tiny.tokenizer->encode_pieces("b"), (Ids{4, 0}));
  EXPECT_EQ(tiny.tokenizer->decode_pieces(Ids{4, 7}), "b b");
}

}  // namespace
}  // namespace xlate::test
