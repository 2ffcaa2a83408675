// Tests that SentencePieceDecoder gives the text that the SentencePiece library gives.
#include "tokenization/sentencepiece/decoder.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <random>

#include "tests/model_builder.h"
#include "tokenization/utf8.h"

namespace xlate::test {
namespace {

// Returns a field of a protocol buffer that holds bytes.
std::string field(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  std::size_t length = bytes.size();
  for (; length >= 0x80; length >>= 7) out += static_cast<char>((length & 0x7F) | 0x80);
  return out + static_cast<char>(length) + bytes;
}

// Decodes random ids of a vocabulary in both ways. The vocabulary has the pieces of the model,
// pieces that the model does not have, and an id without a piece.
void compare(const std::string& bytes, const std::string& what) {
  const SentencePieceModel model = SentencePieceModel::read(bytes, what);
  std::vector<std::string> pieces;
  for (const auto& piece : model.pieces) pieces.emplace_back(piece.text);
  for (const char* piece : {"▁▁other", "x▁y▁", "\u2047", "", " "}) pieces.emplace_back(piece);
  const std::string table = pieces_table(pieces);
  const Vocabulary vocabulary(table, static_cast<std::int64_t>(pieces.size()),
                              Vocabulary::Lookup::kByIdOnly, what);
  const SentencePieceDecoder decoder(model, vocabulary, what);
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(bytes).ok()) << what;
  std::vector<std::int32_t> at_start, bytes_of_characters;
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].starts_with(kMark) && pieces[id].size() < 2 * kMark.size())
      at_start.push_back(static_cast<std::int32_t>(id));
    for (const char* byte : {"<0xE2>", "<0x96>", "<0x81>", "<0x41>"}) {
      if (pieces[id] == byte) bytes_of_characters.push_back(static_cast<std::int32_t>(id));
    }
  }
  std::mt19937 random(7);
  const auto draw = [&]() -> std::int32_t {
    const auto any_of = [&](const std::vector<std::int32_t>& ids) {
      return ids.empty() ? 0 : ids[random() % ids.size()];
    };
    // The first ids are the special tokens, and the last ones no pieces of the model.
    switch (random() % 5) {
      case 0:
        return any_of(at_start);
      case 1:
        return any_of(bytes_of_characters);
      case 2:
        return static_cast<std::int32_t>(random() % 4);
      case 3:
        return static_cast<std::int32_t>(pieces.size() - 1 - random() % 5);
      default:
        return static_cast<std::int32_t>(random() % pieces.size());
    }
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::int32_t> ids(random() % 12);
    std::vector<std::string> texts;
    for (std::int32_t& id : ids) {
      id = draw();
      texts.push_back(pieces[static_cast<std::size_t>(id)]);
    }
    std::string expected;
    ASSERT_TRUE(library.Decode(texts, &expected).ok()) << what;
    ASSERT_EQ(decoder.decode(ids), expected) << what << ", round " << round;
  }
}

struct SentencePieceDecoderTest : testing::TestWithParam<const char*> {
  const std::string model = file_text(source_folder() + "/tests/data/" + GetParam());
};
INSTANTIATE_TEST_SUITE_P(, SentencePieceDecoderTest,
                         testing::Values("segmentation/en.spm", "segmentation/bytes.spm",
                                         "segmentation/symbols.spm",
                                         "opus-shape/shared/source.spm"),
                         [](const auto& info) { return std::to_string(info.index); });

// Later fields of a protocol buffer replace earlier ones.
TEST_P(SentencePieceDecoderTest, TextIsThatOfTheLibrary) {
  compare(model, "as it is");
  for (const bool prefix : {false, true}) {
    for (const bool removes : {false, true}) {
      const char flags[] = {'\x18', static_cast<char>(prefix), '\x20', static_cast<char>(removes)};
      compare(model + field(3, std::string(flags, 4)),
              fmt::format("add_dummy_prefix {}, remove_extra_whitespaces {}", prefix, removes));
    }
  }
  // Field 44 of the trainer's settings is unk_surface.
  compare(model + field(2, "\xE2\x02\x03 ? "), "another surface of the unknown piece");
}

TEST_P(SentencePieceDecoderTest, DenormalizationIsThatOfTheLibrary) {
  const SentencePieceModel read = SentencePieceModel::read(model, "model");
  const std::string charsmap(read.normalization.charsmap);
  if (charsmap.empty()) GTEST_SKIP() << "The model has no character map.";
  // The flags 3 to 5 say that the text is changed by the character map alone.
  compare(model + field(5, field(2, charsmap) + std::string("\x18\0\x20\0\x28\0", 6)), "changed");
  compare(model + field(5, field(2, charsmap)), "changed and stripped");
}

// Many ids may have the unknown piece. Its text, which may be long, is kept once.
TEST(SentencePieceDecoder, ManyIdsOfTheUnknownPiece) {
  constexpr std::size_t kIds = 200'000, kBytes = 1'000'000;
  const std::string bytes =
      sentencepiece_model({"a"}) + field(2, "\xE2\x02\xC0\x84\x3D" + std::string(kBytes, '?'));
  const SentencePieceModel model = SentencePieceModel::read(bytes, "model");
  ASSERT_EQ(model.unknown_surface.size(), kBytes);
  const std::string table = pieces_table(std::vector<std::string>(kIds, "<unk>"));
  const Vocabulary vocabulary(table, kIds, Vocabulary::Lookup::kByIdOnly, "model");
  const SentencePieceDecoder decoder(model, vocabulary, "model");
  EXPECT_EQ(decoder.decode(std::vector<std::int32_t>{kIds - 1}), model.unknown_surface);
}

}  // namespace
}  // namespace xlate::test
