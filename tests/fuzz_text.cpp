// This libFuzzer target checks that the tokenizers of whole models take any text: the ids are in
// range and the same every time, and the text of the ids is one line in valid UTF-8.
// cmake/fuzz.cmake builds and runs it. The models are seeds of fuzz_model_file: those that
// tests/fuzz_seeds.py writes, which have a pipeline or SentencePiece models of every kind, and one
// of Marian. Seeds of text are in tests/data/fuzz/text, and fuzz_text_replay reads them without
// libFuzzer.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/error.h"
#include "models/load.h"
#include "tokenization/utf8.h"

using namespace xlate;

namespace {

using Ids = std::vector<std::int32_t>;

struct Seed {
  explicit Seed(const std::string& path)
      : file(ModelFile::open(path)), tokenizer(load_tokenizer(file)) {}
  ModelFile file;
  Tokenizer tokenizer;
};

const std::vector<Seed>& seeds() {
  static const std::vector<Seed> kSeeds = [] {
    const std::string folder = XLATE_FUZZ_MODELS;
    std::vector<Seed> loaded;
    for (const char* name : {"float32", "pipeline_unigram", "pipeline_unigram_bytes",
                             "pipeline_bpe", "pipeline_bpe_words", "pipeline_byte_level",
                             "sentencepiece_unigram", "sentencepiece_bpe", "sentencepiece_words"})
      loaded.emplace_back(folder + "/" + name);
    return loaded;
  }();
  return kSeeds;
}

void require(bool holds, const Seed& seed, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s\n", seed.file.name().c_str(), what);
  std::abort();
}

void check_text(const std::string& text, const Seed& seed) {
  std::string copy = text;
  require(!make_valid_utf8(copy), seed, "the text is not valid UTF-8");
  require(text.find_first_of("\n\r") == std::string::npos, seed, "the text has a line break");
}

void check(const std::string& text, const Seed& seed) {
  const auto& languages = seed.tokenizer.languages();
  const std::int32_t language = languages.empty() ? -1 : languages.begin()->second;
  const std::int64_t size = seed.file.description().network.reader().embedding.vocabulary;
  const Ids ids = seed.tokenizer.encode(text, language);
  for (const std::int32_t id : ids) require(id >= 0 && id < size, seed, "an id is out of range");
  require(seed.tokenizer.encode(text, language) == ids, seed, "the ids are not the same again");
  const std::string decoded = seed.tokenizer.decode(ids);
  check_text(decoded, seed);
  check_text(seed.tokenizer.decode_pieces(ids), seed);
  require(seed.tokenizer.decode(ids) == decoded, seed, "the text is not the same again");
  // The bytes are ids, too, which come in another order than those of text.
  Ids others;
  for (const char c : text) others.push_back(static_cast<unsigned char>(c) % size);
  check_text(seed.tokenizer.decode(others), seed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  make_valid_utf8(text);
  for (const Seed& seed : seeds()) check(text, seed);
  return 0;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

// In some calls, inserts a text that means something to a tokenizer. The other calls leave the
// mutation to libFuzzer.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  static constexpr const char* kTexts[] = {
      "▁",           " ",      "  ",      "\u3000", "\t",      "\n",    "\r\n",   "</s>",
      "<unk>",       "<0x41>", "a",       "ab",     "the",     "'s",    "n't",    " .",
      "12",          "½",      "ﬁ",       "é",      "e\u0301", "ÄB",    "日本",   "\u200D",
      "👩‍👧", "\u0301", "\u11A7",  "가",     "ᄀ",      "ẛ̣",     "\uFDFA", "\uFFFD",
      "<mask>",      "<x>",    "<|end|>", "en_XX",  "<one>",   ">>xx<<"};
  if (seed % 2) return LLVMFuzzerMutate(data, size, max_size);
  std::string text(reinterpret_cast<const char*>(data), size);
  const std::string more = kTexts[seed / 2 % std::size(kTexts)];
  text.insert(seed / 128 % (size + 1), more);
  if (text.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  text.copy(reinterpret_cast<char*>(data), text.size());
  return text.size();
}
