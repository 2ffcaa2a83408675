// Builds a tiny and complete model.bin (docs/model-format.md) in memory, which tests then damage.
#pragma once

#include <nlohmann/json.hpp>

#include <cstring>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "tests/support.h"

namespace xlate::test {

/// The address of these bytes is a multiple of 64, like that of a mapped file.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::string_view text)
      : size_(text.size()), blocks_((text.size() + 63) / 64) {
    if (size_ > 0) std::memcpy(blocks_.data(), text.data(), size_);
  }
  std::span<const std::byte> span() const {
    return {reinterpret_cast<const std::byte*>(blocks_.data()), size_};
  }
  std::size_t size() const { return size_; }
  char& operator[](std::size_t i) { return reinterpret_cast<char*>(blocks_.data())[i]; }
  std::string_view text() const { return {reinterpret_cast<const char*>(blocks_.data()), size_}; }

 private:
  struct alignas(64) Block {
    std::byte bytes[64];
  };
  std::size_t size_ = 0;
  std::vector<Block> blocks_;
};

inline std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
void append_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

/// Returns the .pieces table of a vocabulary.
inline std::string pieces_table(const std::vector<std::string>& pieces) {
  std::string table;
  for (const std::string& piece : pieces) {
    append_number(table, static_cast<std::uint32_t>(piece.size()));
    table += piece;
  }
  return table;
}

/// Returns a SentencePiece unigram model as a protocol buffer. The model has <unk>, <s> and </s>
/// first and then the pieces, each with a score of its own.
inline std::string sentencepiece_model(const std::vector<std::string>& pieces) {
  const auto field = [](int number, const std::string& bytes) {
    return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) +
           bytes;
  };
  const auto entry = [&](const std::string& piece, float score, int type) {
    std::string message = field(1, piece) + '\x15';
    append_number(message, score);
    return field(1, message + '\x18' + static_cast<char>(type));
  };
  std::string model = entry("<unk>", 0, 2) + entry("<s>", 0, 3) + entry("</s>", 0, 3);
  float score = -1;
  for (const std::string& piece : pieces) model += entry(piece, score -= 0.5f, 1);
  return model + field(3, field(1, "identity"));
}

/// Returns the bytes of a model file with this header and this data, hash included.
inline std::string model_bytes(const std::string& header, const std::string& data,
                               std::uint32_t version = 2) {
  std::string body;
  append_number(body, version);
  append_number(body, std::uint32_t{0});
  append_number(body, static_cast<std::uint64_t>(header.size()));
  const std::size_t data_at = (40 + header.size() + 63) / 64 * 64;
  append_number(body, static_cast<std::uint64_t>(data_at + data.size()));
  body += header;
  body.resize(data_at - 16);
  body += data;
  std::string file = "XLATEMDL";
  append_number(file, static_cast<std::uint64_t>(XXH64(body.data(), body.size(), 0)));
  return file + body;
}

/// A model consists of a header, which tests may edit, and of the data that its entries point into.
struct ModelBuilder {
  nlohmann::json header;
  std::string data;
  std::uint32_t version = 2;

  void pad() { data.resize((data.size() + 63) / 64 * 64); }
  void add_tensor(const std::string& name, DType type, const std::vector<std::int64_t>& shape,
                  const std::string& bytes) {
    pad();
    header["tensors"].push_back({{"name", name},
                                 {"dtype", name_of(type)},
                                 {"shape", shape},
                                 {"offset", data.size()},
                                 {"bytes", bytes.size()}});
    data += bytes;
  }
  void add_file(const std::string& name, const std::string& bytes) {
    pad();
    header["files"].push_back({{"name", name}, {"offset", data.size()}, {"bytes", bytes.size()}});
    data += bytes;
  }
  nlohmann::json& entry(const char* list, const std::string& name) {
    for (nlohmann::json& candidate : header[list]) {
      if (candidate["name"] == name) return candidate;
    }
    throw std::logic_error(name);
  }
  nlohmann::json& tensor(const std::string& name) { return entry("tensors", name); }
  nlohmann::json& file(const std::string& name) { return entry("files", name); }
  void remove(const char* list, const std::string& name) {
    auto& entries = header[list];
    for (auto it = entries.begin(); it != entries.end(); ++it) {
      if ((*it)["name"] == name) return static_cast<void>(entries.erase(it));
    }
    throw std::logic_error(name);
  }
  void replace_file(const std::string& name, const std::string& bytes) {
    remove("files", name);
    add_file(name, bytes);
  }
  std::string text() const { return model_bytes(header.dump(), data, version); }
  AlignedBytes bytes() const { return AlignedBytes(text()); }
};

/// Returns `count` random numbers of a type as a file stores them.
inline std::string random_numbers(Random& random, DType type, std::int64_t count) {
  std::string bytes;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value =
        rounded(type == DType::kInt8 ? DType::kFloat32 : type, uniform(random, -1, 1));
    switch (type) {
      case DType::kFloat32:
        append_number(bytes, static_cast<float>(value));
        break;
      case DType::kFloat16:
        append_number(bytes, half_bits(value));
        break;
      case DType::kBFloat16:
        append_number(bytes, bfloat16_bits(value));
        break;
      case DType::kInt8:
        append_number(bytes, static_cast<std::int8_t>(value * 127));
        break;
    }
  }
  return bytes;
}

inline const std::vector<std::string>& tiny_pieces() {
  static const std::vector<std::string> pieces{"</s>", "<unk>", "▁",      "a",
                                               "b",    "▁a",    ">>xx<<", "<pad>"};
  return pieces;
}

/// Returns a model with D = 4, F = 6 in the encoder and 5 in the decoder, one encoder layer, two
/// decoder layers and V = 8. Its sizes differ from one another as far as they can, so that a test
/// notices when two are confused.
inline ModelBuilder tiny_model(DType matrices = DType::kFloat32, DType vectors = DType::kFloat32) {
  const std::int64_t width = 4, vocabulary = 8, layers = 2;
  ModelBuilder model;
  const auto stack = [&](std::int64_t depth, std::int64_t heads, std::int64_t inner, bool causal) {
    return nlohmann::json{
        {"layers", depth},
        {"width", width},
        {"causal", causal},
        {"parallel", false},
        {"residual_scale", 1},
        {"embedding",
         {{"vocabulary", vocabulary},
          {"scale", 2.0},
          {"positions", "sinusoidal"},
          {"offset", 0},
          {"rate", 2},
          {"norm", false}}},
        {"norm", {{"kind", "layer"}, {"epsilon", 1e-5}, {"places", {"after"}}, {"final", false}}},
        {"attention",
         {{"heads", heads},
          {"kv_heads", heads},
          {"head", width / heads},
          {"scale", heads == 1 ? 0.5 : 0.70710678}}},
        {"feed_forward", {{"width", inner}, {"activation", "relu"}, {"gated", false}}}};
  };
  model.header = {{"network",
                   {{"encoder", stack(1, 1, 6, false)},
                    {"decoder", stack(layers, 2, 5, true)},
                    {"output", {{"scale", 1}}}}},
                  {"tokens", {{"start", 7}, {"end", 0}, {"unknown", 1}, {"pad", 7}}},
                  {"generation", {{"max_source_length", 32}, {"never_chosen", {7}}}},
                  {"tensors", nlohmann::json::array()},
                  {"files", nlohmann::json::array()},
                  {"provenance", {{"source", "tests"}}}};
  Random random(1);
  const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    model.add_tensor(name, matrices, {rows, columns},
                     random_numbers(random, matrices, rows * columns));
    if (matrices == DType::kInt8)
      model.add_tensor(name + ".scale", DType::kFloat32, {rows},
                       random_numbers(random, DType::kFloat32, rows));
  };
  const auto vector = [&](const std::string& name, std::int64_t size) {
    model.add_tensor(name, vectors, {size}, random_numbers(random, vectors, size));
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    matrix(name + ".weight", out, in), vector(name + ".bias", out);
  };
  const auto norm = [&](const std::string& name) {
    vector(name + ".weight", width), vector(name + ".bias", width);
  };
  const auto attention = [&](const std::string& name, const char* query, std::int64_t rows) {
    linear(name + query, rows, width), linear(name + ".out", width, width),
        norm(name + ".norm_after");
  };
  const auto feed_forward = [&](const std::string& name, std::int64_t inner) {
    linear(name + ".up", inner, width), linear(name + ".down", width, inner),
        norm(name + ".norm_after");
  };
  matrix("encoder.embedding.weight", vocabulary, width);
  matrix("decoder.embedding.weight", vocabulary, width);
  attention("encoder.0.self", ".qkv", 3 * width);
  feed_forward("encoder.0.feed_forward", 6);
  for (const std::string name : {"decoder.0", "decoder.1"}) {
    attention(name + ".self", ".qkv", 3 * width);
    attention(name + ".cross", ".query", width);
    feed_forward(name + ".feed_forward", 5);
  }
  linear("decoder.cross.keys_values", 2 * width * layers, width);
  linear("decoder.projection", vocabulary, width);
  for (const std::string side : {"source", "target"}) {
    model.add_file(side + ".spm", sentencepiece_model({"▁", "a", "b", "▁a"}));
    model.add_file(side + ".pieces", pieces_table(tiny_pieces()));
  }
  return model;
}

/// Returns the tiny model's decoder as a network of its own, whose positions are rotations.
inline ModelBuilder tiny_decoder_model() {
  ModelBuilder model = tiny_model();
  nlohmann::json& network = model.header["network"];
  network.erase("encoder");
  network["decoder"]["embedding"] = {
      {"vocabulary", 8}, {"scale", 2.0}, {"positions", "none"}, {"norm", false}};
  network["decoder"]["attention"]["rotary_dims"] = 2;
  model.header["tokens"] = {{"unknown", 1}};
  std::erase_if(model.header["tensors"].get_ref<nlohmann::json::array_t&>(), [](const auto& entry) {
    const std::string name = entry["name"];
    return name.starts_with("encoder.") || name.find(".cross.") != std::string::npos;
  });
  std::string rates;
  append_number(rates, 1.0f);
  model.add_tensor("decoder.rotary.rates", DType::kFloat32, {1, 1}, rates);
  return model;
}

/// Returns the tiny model as format version 1 describes it.
inline ModelBuilder tiny_model_of_version_1() {
  ModelBuilder model = tiny_model();
  model.version = 1;
  model.header.erase("network");
  model.header["generation"].erase("max_source_length");
  model.header["architecture"] = "transformer";
  model.header["config"] = {{"d_model", 4},           {"encoder_layers", 1},
                            {"decoder_layers", 2},    {"encoder_heads", 1},
                            {"decoder_heads", 2},     {"encoder_ffn", 6},
                            {"decoder_ffn", 5},       {"source_vocabulary", 8},
                            {"target_vocabulary", 8}, {"activation", "relu"},
                            {"norm", "post"},         {"norm_epsilon", 1e-5},
                            {"embedding_scale", 2.0}, {"positions", "sinusoidal"},
                            {"max_source_length", 32}};
  for (nlohmann::json& tensor : model.header["tensors"]) {
    std::string name = tensor["name"];
    if (const std::size_t at = name.find(".norm_after"); at != std::string::npos)
      tensor["name"] = name.erase(at + 5, 6);
  }
  return model;
}

}  // namespace xlate::test
