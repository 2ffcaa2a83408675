// This libFuzzer target checks that any bytes given as a model file are either read or refused with
// an Error, and that a tokenizer that was read makes ids in range of any text, and text in valid
// UTF-8 of any ids, or an Error. cmake/fuzz.cmake builds and runs it. Its seeds are in
// tests/data/fuzz/model_file, and tests/fuzz_seeds.py writes those with a pipeline, and those with
// SentencePiece models whose names say so. fuzz_replay and model_file_test read them too, so an
// input that broke something is kept in that folder.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/error.h"
#include "models/load.h"
#include "models/network.h"
#include "tokenization/utf8.h"

using namespace xlate;
using nlohmann::json;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

constexpr std::size_t kPrefix = 40, kAlignment = 64;

// This memory is like that of a mapped file: it is aligned, and nothing follows its end.
struct Bytes {
  explicit Bytes(std::size_t size)
      : data(static_cast<std::uint8_t*>(::operator new(size, std::align_val_t(kAlignment)))),
        size(size) {}
  ~Bytes() { ::operator delete(data, std::align_val_t(kAlignment)); }
  Bytes(const Bytes&) = delete;
  std::uint8_t* data;
  std::size_t size;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void check_text(std::string text) {
  require(text.find_first_of("\n\r") == std::string::npos, "the text has a line break");
  require(!make_valid_utf8(text), "the text is not valid UTF-8");
}

// Returns texts that reach every step of a pipeline.
std::vector<std::string> texts_for(const Tokenizer& tokenizer, const ModelDescription& model) {
  std::vector<std::string> texts{
      ">>xx<< a b ab", "The  fi\u0301rst e\u0301\uFB01 \u00BD \u3000\t12-34, a;b#c. it's \u2581a",
      "\u65E5\u672C \uAC00\u11A7 \U0001F469\u200D\U0001F467 \uFDFA <0x41> \r\n",
      std::string(200, 'a') + "b" + std::string(200, ' ') + "c"};
  for (std::size_t i = 0; i < std::min<std::size_t>(model.tokens.added.size(), 8); ++i)
    texts.push_back("a " + tokenizer.decode_pieces({&model.tokens.added[i].id, 1}) + " b");
  return texts;
}

void use(const Tokenizer& tokenizer, const ModelDescription& model) {
  const std::int64_t source_size = model.network.reader().embedding.vocabulary,
                     target_size = model.network.decoder.embedding.vocabulary;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::min<std::int64_t>(target_size, 600)));
  std::iota(ids.begin(), ids.end(), 0);
  check_text(tokenizer.decode_pieces(ids));
  if (!tokenizer.has_text()) return;
  const bool has_language = model.tokenizer && model.tokenizer->around.has_source_language();
  if (has_language && tokenizer.languages().empty()) return;
  const std::int32_t language = has_language ? tokenizer.languages().begin()->second : -1;
  // Each of them may end with an Error of its own.
  const auto attempt = [](const auto& step) {
    try {
      step();
    } catch (const Error&) {
    }
  };
  attempt([&] { check_text(tokenizer.decode(ids)); });
  for (std::string text : texts_for(tokenizer, model)) {
    make_valid_utf8(text);
    attempt([&] {
      const std::vector<std::int32_t> found = tokenizer.encode(text, language);
      for (const std::int32_t id : found)
        require(id >= 0 && id < source_size, "an id is out of range");
      if (target_size >= source_size) check_text(tokenizer.decode(found));
    });
  }
}

void read(const Bytes& bytes) {
  static const std::unique_ptr<Backend> backend = make_backend({.threads = 1});
  try {
    const ModelFile file("fuzz.bin", {reinterpret_cast<const std::byte*>(bytes.data), bytes.size},
                         false);
    try {
      use(load_tokenizer(file), file.description());
    } catch (const Error&) {
    }
    load_network(file, *backend);
  } catch (const Error&) {
  }
}

template <class T>
void put(std::uint8_t* data, std::size_t offset, T value) {
  std::memcpy(data + offset, &value, sizeof(value));
}

// Corrects the fields that a reader checks before anything else.
void repair(std::uint8_t* data, std::size_t size) {
  std::memcpy(data, "XLATEMDL", 8);
  // Both format versions are read.
  put(data, 16, std::uint32_t{data[16] == 1 ? 1u : 2u});
  put(data, 32, static_cast<std::uint64_t>(size));
}

using Random = std::minstd_rand;

json& any_value(json& root, Random& random) {
  json* at = &root;
  while (at->is_structured() && !at->empty() && (at == &root || random() % 4)) {
    auto next = at->begin();
    std::advance(next, static_cast<std::ptrdiff_t>(random() % at->size()));
    at = &*next;
  }
  return *at;
}

// Inserts a step of a pipeline, sometimes many times. Most of these steps ask for much time or
// memory.
void add_steps(json& header, Random& random) {
  static const json kSteps = json::parse(R"json({
    "normalize": [
      {"kind": "charsmap"},
      {"kind": "replace", "text": "a", "with": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
      {"kind": "replace", "pattern": ".", "with": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
      {"kind": "replace", "pattern": "(a+)+$", "with": ""},
      {"kind": "replace", "pattern": "(?=a\\Kb*)", "with": "x"},
      {"kind": "replace", "pattern": "\\s+$", "with": "\u0301"},
      {"kind": "prepend", "text": "\u2581 <x>"},
      {"kind": "strip", "left": true, "right": true},
      {"kind": "unicode", "form": "nfkd"}, {"kind": "unicode", "form": "nfc"}],
    "split": [
      {"kind": "whitespace"}, {"kind": "digits", "individual": true},
      {"kind": "metaspace", "prepend": "always", "split": true},
      {"kind": "pattern", "pattern": "(?:a|a)*[bc]", "behavior": "isolated"},
      {"kind": "pattern", "pattern": ".", "behavior": "isolated"},
      {"kind": "pattern", "pattern": "a*a*a*a*a*[bc]", "behavior": "removed", "invert": true},
      {"kind": "pattern", "pattern": "(?R)?a*?[bc]", "behavior": "contiguous"},
      {"kind": "pattern", "pattern": "(a|b|\\s)+?", "behavior": "merged_with_next"},
      {"kind": "pattern", "pattern": "\\b|\\p{Han}", "behavior": "merged_with_previous"},
      {"kind": "byte_level", "prefix_space": true}],
    "decode": [
      {"kind": "metaspace", "prepend": "first"}, {"kind": "byte_level"}, {"kind": "fuse"},
      {"kind": "byte_fallback"}, {"kind": "strip", "text": "a", "left": 1048576, "right": 1},
      {"kind": "replace", "text": "a", "with": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
      {"kind": "replace", "text": " ", "with": "<0xFF>"}]
})json");
  const auto tokenizer = header.find("tokenizer");
  if (tokenizer == header.end() || !tokenizer->is_object()) return;
  const char* const list = std::array{"normalize", "split", "decode"}[random() % 3];
  json& steps = (*tokenizer)[list];
  if (!steps.is_array()) steps = json::array();
  const json& step = kSteps[list][random() % kSteps[list].size()];
  for (unsigned count = random() % 4 ? 1 : 30; count > 0; --count)
    steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(random() % (steps.size() + 1)), step);
}

// Changes the header. It replaces one value by another value of the header or by an edge case, adds
// a small number to it, removes or repeats an entry, adds steps to a tokenizer, or gives a tensor
// another type.
void change(json& header, Random& random) {
  static const std::vector<json> edges{nullptr,
                                       true,
                                       -1,
                                       0,
                                       1,
                                       2,
                                       3,
                                       63,
                                       64,
                                       128,
                                       4096,
                                       std::int64_t{1} << 24,
                                       std::int64_t{1} << 31,
                                       std::int64_t{1} << 62,
                                       std::uint64_t(-1),
                                       0.5,
                                       1e300,
                                       -1e-300,
                                       "",
                                       "float16",
                                       "bfloat16",
                                       "int8",
                                       "float32",
                                       "unigram",
                                       "bpe",
                                       "sentencepiece",
                                       "charsmap",
                                       "replace",
                                       "prepend",
                                       "strip",
                                       "unicode",
                                       "nfkd",
                                       "whitespace",
                                       "metaspace",
                                       "pattern",
                                       "digits",
                                       "byte_level",
                                       "byte_fallback",
                                       "fuse",
                                       "always",
                                       "first",
                                       "never",
                                       "removed",
                                       "isolated",
                                       "contiguous",
                                       "merged_with_previous",
                                       "merged_with_next",
                                       "source_language",
                                       " ",
                                       "a",
                                       "\u2581",
                                       std::string(64, 'a'),
                                       "(a+)+$",
                                       "(?:a|a)*[bc]",
                                       "(?R)",
                                       "(?=a\\Kb*)",
                                       "(?<=(?=.*x)) ",
                                       "a*a*a*a*a*[bc]",
                                       "\\p{Han}|\\s+",
                                       "(?:(?:a{99}){99}){99}",
                                       "[^\\S]|\\w+?",
                                       "x*",
                                       ".",
                                       json::array(),
                                       json::object()};
  json& value = any_value(header, random);
  switch (random() % 7) {
    case 6:
      add_steps(header, random);
      return;
    case 0:
      value = json(any_value(header, random));
      return;
    case 1:
      value = edges[random() % edges.size()];
      return;
    case 2:
      if (value.is_number_integer())
        value = value.get<std::int64_t>() + static_cast<std::int64_t>(random() % 129) - 64;
      return;
    case 3:
      if (value.is_structured() && !value.empty())
        value.erase(std::next(value.begin(), static_cast<std::ptrdiff_t>(random() % value.size())));
      return;
    case 4:
      if (value.is_array() && !value.empty()) value.push_back(json(value[random() % value.size()]));
      return;
    // The type of a tensor changes together with its number of bytes.
    default: {
      json& tensors = header["tensors"];
      if (!tensors.is_array() || tensors.empty()) return;
      json& tensor = tensors[random() % tensors.size()];
      if (!tensor.is_object() || !tensor.contains("shape") || !tensor["shape"].is_array()) return;
      std::uint64_t bytes = 1;
      for (const json& size : tensor["shape"])
        bytes *= size.is_number_unsigned() ? size.get<std::uint64_t>() : 1;
      const std::size_t type = random() % 4;
      constexpr const char* kNames[] = {"int8", "float16", "bfloat16", "float32"};
      constexpr std::uint64_t kSizes[] = {1, 2, 2, 4};
      tensor["dtype"] = kNames[type];
      tensor["bytes"] = bytes * kSizes[type];
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(size);
  if (size > 0) std::memcpy(bytes.data, data, size);
  read(bytes);
  if (size < kPrefix) return 0;
  repair(bytes.data, size);
  if (std::memcmp(bytes.data, data, size) != 0) read(bytes);
  return 0;
}

// Mutates the header's JSON in about half of the calls. The length of the header and the position
// of the data stay consistent. The other calls leave the mutation to libFuzzer.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  Random random(seed);
  if (size < kPrefix || random() % 2) return LLVMFuzzerMutate(data, size, max_size);
  std::uint64_t length = 0;
  std::memcpy(&length, data + 24, sizeof(length));
  if (length > size - kPrefix) return LLVMFuzzerMutate(data, size, max_size);
  json header = json::parse(data + kPrefix, data + kPrefix + length, nullptr, false);
  if (!header.is_object()) return LLVMFuzzerMutate(data, size, max_size);
  for (unsigned i = 1 + random() % 3; i > 0 && header.is_object(); --i) change(header, random);
  const std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto data_at = [](std::size_t header_size) {
    return (kPrefix + header_size + kAlignment - 1) / kAlignment * kAlignment;
  };
  const std::size_t from = std::min(data_at(length), size), rest = size - from,
                    to = data_at(text.size());
  if (to + rest > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memmove(data + to, data + from, rest);
  std::memset(data + kPrefix, 0, to - kPrefix);
  std::memcpy(data + kPrefix, text.data(), text.size());
  put(data, 24, static_cast<std::uint64_t>(text.size()));
  repair(data, to + rest);
  return to + rest;
}
