// Tests that good model files are read as they are, and that files that are damaged as a whole are
// refused. model_header_test.cpp has the errors of single values.
#include "models/model_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "models/load.h"
#include "models/network.h"
#include "models/weights.h"
#include "tests/model_edits.h"

namespace xlate::test {
namespace {

using nlohmann::json;
TEST(ModelFile, TheTinyModelIsGood) {
  for (const DType matrices : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt8}) {
    const ModelBuilder model =
        tiny_model(matrices, matrices == DType::kInt8 ? DType::kFloat16 : matrices);
    const AlignedBytes bytes = model.bytes();
    load_all(bytes);
    const ModelFile file("tiny.bin", bytes.span());
    EXPECT_EQ(file.name(), "tiny.bin");
    EXPECT_EQ(file.bytes(), static_cast<std::int64_t>(bytes.size()));
    const NetworkDescription& network = file.description().network;
    EXPECT_EQ(network.encoder.width, 4);
    EXPECT_EQ(network.encoder.feed_forward.width, 6);
    EXPECT_EQ(network.decoder.feed_forward.width, 5);
    EXPECT_EQ(network.decoder.attention.heads, 2);
    EXPECT_EQ(file.description().generation.max_source_length, 32);
    EXPECT_EQ(file.description().tokens.start, 7);
    EXPECT_FALSE(file.description().generation.beam_size);
    std::int64_t elements = 0;
    for (const json& entry : model.header["tensors"]) {
      if (entry["name"].get<std::string>().ends_with(".scale")) continue;
      std::int64_t count = 1;
      for (const json& size : entry["shape"]) count *= size.get<std::int64_t>();
      elements += count;
    }
    EXPECT_EQ(file.parameters(), elements);
    const StoredTensor up = file.matrix("encoder.0.feed_forward.up.weight", 6, 4);
    EXPECT_EQ(up.dtype, matrices);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(up.data) % 64, 0u);
    EXPECT_EQ(file.file("source.pieces"), pieces_table(tiny_pieces()));
  }
}

TEST(ModelFile, ConvertedFilesAreGood) {
  const ModelFile shared = ModelFile::open(models_folder() + "/shared.bin"),
                  data = ModelFile::open(source_folder() + "/data/en-de.bin");
  const auto backend = make_backend({.threads = 2});
  for (const ModelFile* file : {&shared, &data}) {
    load_network(*file, *backend);
    load_tokenizer(*file);
  }
  // This file has format version 1.
  EXPECT_EQ(data.description().network.encoder.width, 256);
  EXPECT_EQ(data.description().network.encoder.layers, 6);
  EXPECT_NE(shared.hash(), data.hash());
  // The model has one vocabulary, whose three tied matrices are stored once.
  const NetworkDescription& network = shared.description().network;
  EXPECT_EQ(shared
                .matrix("encoder.embedding.weight", network.encoder.embedding.vocabulary,
                        network.encoder.width)
                .data,
            shared
                .matrix("decoder.projection.weight", network.decoder.embedding.vocabulary,
                        network.decoder.width)
                .data);
}

TEST(ModelFile, GenerationDefaultsAreRead) {
  ModelBuilder model = tiny_model();
  model.header["generation"] = {{"max_source_length", 32},  {"beam_size", 6},
                                {"length_penalty", 0.5},    {"early_stopping", "never"},
                                {"max_length", 99},         {"forced_first", 3},
                                {"forced_end", 0},          {"never_chosen", {7, 2}},
                                {"renormalize", true},      {"ends", {0, 5}},
                                {"min_length", 11},         {"no_repeat_ngram", 3},
                                {"repetition_penalty", 1.5}};
  const AlignedBytes bytes = model.bytes();
  const GenerationDefaults generation =
      ModelFile("tiny.bin", bytes.span()).description().generation;
  EXPECT_EQ(generation.beam_size, 6);
  EXPECT_EQ(generation.length_penalty, 0.5f);
  EXPECT_EQ(generation.early_stopping, EarlyStopping::kNever);
  EXPECT_EQ(generation.max_length, 99);
  EXPECT_EQ(generation.forced_first, 3);
  EXPECT_EQ(generation.forced_end, 0);
  EXPECT_EQ(generation.never_chosen, (std::vector<std::int32_t>{7, 2}));
  EXPECT_EQ(generation.ends, (std::vector<std::int32_t>{0, 5}));
  EXPECT_EQ(generation.min_length, 11);
  EXPECT_EQ(generation.no_repeat_ngram, 3);
  EXPECT_EQ(generation.repetition_penalty, 1.5f);
  EXPECT_TRUE(generation.renormalize);
}

ModelDescription describe(const ModelBuilder& model) {
  const AlignedBytes bytes = model.bytes();
  return ModelFile("tiny.bin", bytes.span()).description();
}

TEST(ModelFile, ADecoderAloneIsRead) {
  const ModelDescription plain = describe(tiny_decoder_model());
  EXPECT_FALSE(plain.network.has_encoder());
  EXPECT_EQ(&plain.network.reader(), &plain.network.decoder);
  EXPECT_EQ(plain.network.decoder.attention.rate_rows(), 1);
  EXPECT_EQ(plain.tokens.start, -1);
  EXPECT_EQ(plain.tokens.end, -1);
  EXPECT_TRUE(plain.generation.ends.empty());
  EXPECT_FALSE(plain.generation.max_total_length);

  ModelBuilder model = tiny_decoder_model();
  for (const Edit& edit :
       {at("/decoder/parallel", true), at("/decoder/residual_scale", 0.5),
        at("/decoder/norm/places", json::array({"before"})), at("/decoder/norm/final", true),
        at("/decoder/attention/kv_heads", 1), at("/decoder/attention/softcap", 50),
        at("/decoder/attention/query_key_norm", true), at("/decoder/attention/slope", true),
        at("/decoder/attention/rates", json::array({-1, 1})),
        at("/decoder/attention/windows", json::array({0, 4})), at("/output/scale", 0.25),
        at("/output/softcap", 30), set("generation", "max_total_length", 99)})
    edit(model);
  const ModelDescription all = describe(model);
  const StackDescription& decoder = all.network.decoder;
  EXPECT_TRUE(decoder.parallel);
  EXPECT_EQ(decoder.residual_scale, 0.5f);
  EXPECT_EQ(decoder.attention.kv_heads, 1);
  EXPECT_EQ(decoder.attention.softcap, 50);
  EXPECT_TRUE(decoder.attention.query_key_norm);
  EXPECT_TRUE(decoder.attention.slope);
  EXPECT_EQ(decoder.attention.rates, (std::vector<std::int64_t>{-1, 1}));
  EXPECT_EQ(decoder.attention.rate_rows(), 2);
  EXPECT_EQ(decoder.attention.windows, (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(all.network.output_scale, 0.25f);
  EXPECT_EQ(all.network.output_softcap, 30);
  EXPECT_EQ(all.generation.max_total_length, 99);
}

TEST(ModelFile, OverflowOfFloat16IsReadAndIsNoneByDefault) {
  const auto overflows = [](const ModelBuilder& model) {
    return describe(model).network.overflows_float16;
  };
  EXPECT_FALSE(overflows(tiny_model()));
  EXPECT_FALSE(overflows(tiny_model_of_version_1()));
  for (const bool value : {true, false}) {
    ModelBuilder model = tiny_model();
    at("/overflows_float16", value)(model);
    EXPECT_EQ(overflows(model), value);
  }
}

TEST(ModelFile, WhatCannotBeOpened) {
  const auto folder = std::filesystem::path(testing::TempDir()) /
                      fmt::format("xlate_model_file_test_{}", ::getpid());
  std::filesystem::create_directories(folder);
  const std::string empty = (folder / "empty.bin").string(), text = (folder / "text.bin").string();
  std::ofstream(empty).close();
  std::ofstream(text) << "Guten Tag";
  expect_error([&] { ModelFile::open((folder / "none.bin").string()); },
               {"none.bin", "No such file"});
  expect_error([&] { ModelFile::open(folder.string()); },
               {folder.string(), "a directory", "scripts/convert.py " + folder.string()});
  const auto quoted = folder / "it's one";
  std::filesystem::create_directories(quoted);
  expect_error([&] { ModelFile::open(quoted.string()); },
               {"convert.py '" + folder.string() + "/it'\\''s one' -o"});
  expect_error([&] { ModelFile::open("/dev/null"); }, {"/dev/null", "not a regular file"});
  expect_error([&] { ModelFile::open(empty); }, {empty, "empty"});
  expect_error([&] { ModelFile::open(text); }, {text, "XLATEMDL", "scripts/convert.py"});
  std::filesystem::remove_all(folder);
}

// A file that is opened without its hash says that it is damaged when it is asked, or at once if
// the damage keeps it from being read.
TEST(ModelFile, TheHashMayBeVerifiedLater) {
  const auto path = std::filesystem::path(testing::TempDir()) /
                    fmt::format("xlate_model_file_test_{}.bin", ::getpid());
  const auto open = [&](std::size_t changed) {
    std::string bytes = tiny_model().text();
    if (changed > 0) bytes[changed] = static_cast<char>(bytes[changed] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
    return ModelFile::open(path.string(), /*verify_hash=*/false);
  };
  open(0).verify_hash();
  const std::size_t last = tiny_model().text().size() - 1;
  const ModelFile damaged = open(last);
  expect_error([&] { damaged.verify_hash(); }, {path.string(), "damaged", "expected"});
  expect_error([&] { ModelFile::open(path.string()); }, {path.string(), "damaged"});
  // The header begins with a brace.
  expect_error([&] { open(40); }, {path.string(), "damaged"});
  std::filesystem::remove(path);
}

// Another program can cut a model short or overwrite it while its tokenizer is read.
TEST(ModelFile, EmbeddedFilesDoNotChangeWithTheModel) {
  AlignedBytes bytes = tiny_model().bytes();
  const ModelFile file("tiny.bin", bytes.span()), copy = file;
  const std::string pieces = pieces_table(tiny_pieces());
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = 0;
  EXPECT_EQ(file.file("source.pieces"), pieces);
  EXPECT_EQ(copy.file("target.pieces"), pieces);
}

TEST(ModelFile, WrongPrefix) {
  const std::string good = tiny_model().text();
  const auto expect = [&](std::size_t offset, auto value,
                          std::initializer_list<std::string_view> texts, bool verify_hash = false) {
    std::string bad = good;
    std::memcpy(bad.data() + offset, &value, sizeof(value));
    expect_error([&] { load_all(AlignedBytes(bad), verify_hash); }, texts);
  };
  const std::string size = fmt::format("{}", good.size());
  expect(0, 'x', {"tiny.bin", "not a model file", "XLATEMDL"});
  expect(16, std::uint32_t{3}, {"tiny.bin", "version is 3", "expected 1 to 2"});
  // The version is checked before the hash, so a newer file is not reported as damaged.
  expect(16, std::uint32_t{3}, {"tiny.bin", "version is 3", "expected 1 to 2"}, true);
  expect(32, std::uint64_t{good.size() + 1},
         {"cut short", size, fmt::format("expected {}", good.size() + 1)});
  expect(32, std::uint64_t{good.size() - 1},
         {"too long", size, fmt::format("expected {}", good.size() - 1)});
  expect(24, std::uint64_t{good.size() - 39},
         {"header of", fmt::format("expected at most {}", good.size() - 40)});
  expect(24, ~std::uint64_t{0}, {"header of 18446744073709551615 bytes"});
  expect(24, std::uint64_t{0}, {"header is not JSON"});
  expect(8, std::uint64_t{0x1234}, {"damaged", "0000000000001234"}, true);
  expect_error([&] { load_all(AlignedBytes(good + 'x')); }, {"too long"});
  expect_error([&] { load_all(AlignedBytes("")); }, {"not a model file"});
  expect_error([&] { load_all(AlignedBytes(good.substr(0, 39))); }, {"cut short", "39", "40"});
}

// The seeds of fuzz_model_file, and inputs that once broke something, are either read or refused.
TEST(ModelFile, TheFuzzersCorpus) {
  int read = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(source_folder() + "/tests/data/fuzz/model_file")) {
    SCOPED_TRACE(entry.path().filename().string());
    try {
      load_all(AlignedBytes(file_text(entry.path().string())), false);
      ++read;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("tiny.bin: ")) << error.what();
    }
  }
  EXPECT_GE(read, 5);
}

TEST(ModelFile, CutAnywhere) {
  const AlignedBytes good(file_text(models_folder() + "/shared.bin"));
  for (int percent = 0; percent < 100; ++percent) {
    const auto part = good.span().first(good.size() * static_cast<std::size_t>(percent) / 100);
    for (const bool verify_hash : {true, false}) {
      expect_error([&] { ModelFile("cut.bin", part, verify_hash); }, {"cut.bin"});
    }
  }
}

TEST(ModelFile, AFlippedByteAnywhere) {
  AlignedBytes bytes(file_text(models_folder() + "/shared.bin"));
  Random random(1);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < 64; ++i) places.push_back(i), places.push_back(bytes.size() - 1 - i);
  for (int i = 0; i < 200; ++i) places.push_back(random() % bytes.size());
  for (const std::size_t place : places) {
    const char before = bytes[place];
    bytes[place] = static_cast<char>(before ^ (1 << random() % 8));
    expect_error([&] { ModelFile("flipped.bin", bytes.span()); }, {"flipped.bin"});
    bytes[place] = before;
  }
  ModelFile("whole.bin", bytes.span());
}

// A header that is damaged anywhere causes an Error and nothing worse. Sometimes what remains is a
// valid model.
TEST(ModelFile, SpoiledHeadersWithTheirHashUnseen) {
  const std::string good = tiny_model().text();
  std::uint64_t header = 0;
  std::memcpy(&header, good.data() + 24, 8);
  Random random(2);
  int errors = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bad = good;
    for (int flips = whole(random, 1, 3); flips > 0; --flips)
      bad[40 + random() % header] = static_cast<char>(whole(random, 32, 126));
    try {
      load_all(AlignedBytes(bad), false);
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 500);
}

TEST(ModelFile, WrongHeaders) {
  const auto header = [](const std::string& text) {
    return [=] { load_all(AlignedBytes(model_bytes(text, ""))); };
  };
  expect_error(header("{"), {"tiny.bin", "not JSON"});
  expect_error(header("{\"a\": \"\xff\"}"), {"tiny.bin", "not JSON"});
  expect_error(header("[]"), {"tiny.bin", "not a JSON object"});
  expect_error(header(R"({"architecture": "mamba"})"), {"tiny.bin", "no object 'network'"});
}

// Values may be nested so deeply that a recursive reader would overflow the stack.
TEST(ModelFile, DeeplyNestedHeaders) {
  constexpr int kDepth = 200'000;
  const std::string deep = std::string(kDepth, '[') + std::string(kDepth, ']');
  const std::string good = tiny_model().header.dump();
  const auto spoiled = [&](const std::string& from) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    const std::size_t end = text.find_first_of(",}", at + from.size());
    return model_bytes(text.replace(at + from.size(), end - at - from.size(), deep),
                       tiny_model().data);
  };
  for (const std::string key : {"\"layers\":", "\"width\":", "\"kind\":", "\"activation\":",
                                "\"start\":", "\"dtype\":", "\"shape\":", "\"name\":"}) {
    SCOPED_TRACE(key);
    expect_error([&] { load_all(AlignedBytes(spoiled(key))); }, {"tiny.bin"});
  }
  // Nobody reads this value.
  load_all(AlignedBytes(spoiled("\"provenance\":{\"source\":")));
}

}  // namespace
}  // namespace xlate::test
