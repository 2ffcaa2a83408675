// Tests that each wrong value in a model file's header, and in its files, is reported with the
// value found and the value expected.
#include <gtest/gtest.h>

#include "tests/model_edits.h"

namespace xlate::test {
namespace {

using nlohmann::json;

struct Wrong {
  Edit edit;
  // The message must contain these texts.
  std::vector<std::string> texts;
};

// Expects that the model is refused, by everything that reads it or by `read`.
void expect_told(
    const std::vector<Wrong>& cases, const ModelBuilder& good = tiny_model(),
    const std::function<void(const AlignedBytes&)>& read = [](const auto& b) { load_all(b); }) {
  for (const Wrong& wrong : cases) {
    ModelBuilder model = good;
    wrong.edit(model);
    SCOPED_TRACE(wrong.texts.empty() ? "" : wrong.texts.front());
    try {
      read(model.bytes());
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("tiny.bin: ")) << error.what();
      for (const std::string& text : wrong.texts)
        EXPECT_NE(std::string_view(error.what()).find(text), std::string_view::npos)
            << "'" << text << "' is not in: " << error.what();
    }
  }
}

void read_header(const AlignedBytes& bytes) { ModelFile("tiny.bin", bytes.span()); }

TEST(ModelHeader, WhatADecoderAloneCannotBe) {
  expect_told(
      {
          {at("/decoder/causal", false), {"'network.decoder.causal'", "true"}},
          {at("/decoder/parallel", true), {"'network.decoder.norm.places'", "before"}},
          {at("/decoder/norm/places", json::array({"before", "inside"})),
           {"'network.decoder.norm.final'"}},
          {[](ModelBuilder& model) {
             at("/decoder/embedding/positions", "sinusoidal")(model);
             at("/decoder/embedding/offset", 0)(model);
             at("/decoder/embedding/rate", 2)(model);
           },
           {"'network.decoder.embedding.positions'", "none or learned"}},
          {at("/decoder/attention/distances", 3), {"'network.decoder.attention.distances'"}},
          {at("/decoder/attention/rotary_dims", 1),
           {"'network.decoder.attention.rotary_dims' is 1", "an even number"}},
          {at("/decoder/attention/rotary_dims", 4),
           {"'network.decoder.attention.rotary_dims' is 4", "from 0 to 2"}},
          {at("/decoder/attention/rates", json::array({0})),
           {"'network.decoder.attention.rates' is an array", "2 numbers"}},
          {at("/decoder/attention/rates", json::array({0, 2})),
           {"'network.decoder.attention.rates' is 2", "from -1 to 1"}},
          {at("/decoder/attention/rates", json::array({-1, -1})),
           {"'network.decoder.attention.rates' is an array", "no layer is rotated"}},
          {at("/output/scale", 0.5), {"'network.output.scale'", "no final norm"}},
          {set("generation", "max_total_length", 0), {"'generation.max_total_length' is 0"}},
      },
      tiny_decoder_model(), read_header);
}

// A network that is described as in version 1 is still read, and its errors are reported.
TEST(ModelHeader, WrongConfigOfVersion1) {
  load_all(tiny_model_of_version_1().bytes());
  expect_told(
      {
          {set("config", "norm", "pre"), {"'config.norm'", "\"pre\"", "'post'"}},
          {set("config", "positions", "learned"),
           {"'config.positions'", "\"learned\"", "'sinusoidal'"}},
          {set("config", "activation", "tanh"),
           {"'config.activation'", "\"tanh\"", "relu", "swish", "gelu_tanh"}},
          {set("config", "d_model", 0),
           {"'config.d_model' is 0", "expected a whole number from 2"}},
          {set("config", "d_model", "4"), {"'config.d_model' is \"4\"", "expected a whole number"}},
          {set("config", "d_model", 4.0), {"'config.d_model' is 4.0", "expected a whole number"}},
          {set("config", "d_model", 1e300), {"'config.d_model' is 1e+300"}},
          {set("config", "d_model", std::uint64_t{18446744073709551615u}),
           {"'config.d_model' is 18446744073709551615"}},
          {set("config", "d_model", -4), {"'config.d_model' is -4"}},
          {set("config", "d_model", 5), {"'config.d_model' is 5"}},
          {set("config", "encoder_heads", 3),
           {"'config.d_model' is 4", "'config.encoder_heads', 3"}},
          {set("config", "decoder_heads", 5), {"'config.decoder_heads' is 5", "from 1 to 4"}},
          {set("config", "decoder_layers", 1'000'000), {"'config.decoder_layers' is 1000000"}},
          {set("config", "encoder_layers", 0), {"'config.encoder_layers' is 0"}},
          {set("config", "norm_epsilon", -1), {"'config.norm_epsilon' is -1"}},
          {set("config", "norm_epsilon", nullptr), {"'config.norm_epsilon' is null"}},
          {set("config", "embedding_scale", 1e30), {"'config.embedding_scale' is 1e+30"}},
          {set("config", "max_source_length", 1), {"'config.max_source_length' is 1"}},
          {erase("config", "target_vocabulary"), {"no 'config.target_vocabulary'"}},
          {erase("config", "norm"), {"no 'config.norm'"}},
          {[](ModelBuilder& model) { model.header["config"] = 3; }, {"no object 'config'"}},
          {[](ModelBuilder& model) { model.header.erase("architecture"); },
           {"'architecture' is missing", "\"transformer\""}},
          {[](ModelBuilder& model) { model.header["architecture"] = "mamba"; },
           {"\"mamba\"", "\"transformer\""}},
      },
      tiny_model_of_version_1());
}

TEST(ModelHeader, WrongNetwork) {
  expect_told({
      {[](ModelBuilder& model) { model.header.erase("network"); }, {"no object 'network'"}},
      {[](ModelBuilder& model) { model.header["network"].erase("encoder"); },
       {"'network.decoder.embedding.positions'", "no encoder"}},
      {[](ModelBuilder& model) { model.header["network"].erase("decoder"); },
       {"no object 'network.decoder'"}},
      {at("/encoder/layers", 0), {"'network.encoder.layers' is 0"}},
      {at("/encoder/width", 5), {"'network.encoder.width' is 5", "even"}},
      {at("/decoder/width", 1e300), {"'network.decoder.width' is 1e+300"}},
      {at("/decoder/embedding/positions", "rotary"),
       {"'network.decoder.embedding.positions' is \"rotary\"", "learned"}},
      {at("/decoder/embedding/rate", 0), {"'network.decoder.embedding.rate' is 0"}},
      {at("/encoder/embedding/scale", "2"), {"'network.encoder.embedding.scale' is \"2\""}},
      {at("/encoder/norm/places", "after"),
       {"'network.encoder.norm.places' is \"after\"", "an array"}},
      {at("/encoder/norm/places", json::array({"after", "after"})),
       {"'network.encoder.norm.places' is \"after\"", "at most once"}},
      {at("/encoder/norm/kind", "batch"),
       {"'network.encoder.norm.kind' is \"batch\"", "layer or rms"}},
      {at("/encoder/attention/kv_heads", 3), {"'network.encoder.attention.kv_heads' is 3"}},
      {at("/encoder/attention/windows", json::array({1, 2})),
       {"'network.encoder.attention.windows' is an array", "1 numbers"}},
      {at("/encoder/feed_forward/activation", "tanh"),
       {"'network.encoder.feed_forward.activation' is \"tanh\"", "relu", "gelu_tanh"}},
      {at("/output/scale", nullptr), {"'network.output.scale' is null"}},
      {at("/decoder/embedding/offset", 2), {"'network.encoder.embedding.offset'", "the decoder's"}},
      {at("/decoder/embedding/rate", 3), {"'network.encoder.embedding.rate'", "the decoder's"}},
      // A value that the format describes, but that no backend computes yet, is refused by its
      // name.
      {at("/decoder/norm/places", json::array({"inside"})),
       {"'network.decoder.norm.places'", "before and after"}},
      {at("/decoder/norm/places", json::array({"before"})),
       {"'network.decoder.norm.final'", "before sublayers alone"}},
      {at("/decoder/parallel", true), {"'network.decoder.parallel'"}},
      {at("/decoder/causal", false), {"'network.decoder.causal'", "true"}},
      {at("/decoder/residual_scale", 0.5), {"'network.decoder.residual_scale'"}},
      {at("/decoder/attention/kv_heads", 1), {"'network.decoder.attention.kv_heads'"}},
      {at("/decoder/attention/softcap", 30), {"'network.decoder.attention.softcap'"}},
      {at("/decoder/attention/query_key_norm", true),
       {"'network.decoder.attention.query_key_norm'"}},
      {at("/decoder/attention/slope", true), {"'network.decoder.attention.slope'"}},
      {at("/decoder/attention/rotary_dims", 2), {"'network.decoder.attention.rotary_dims'"}},
      {at("/decoder/attention/windows", json::array({0, 4})),
       {"'network.decoder.attention.windows'"}},
      {at("/output/scale", 0.5), {"'network.output.scale'", "no final norm"}},
      {at("/encoder/attention/distances", -1), {"'network.encoder.attention.distances' is -1"}},
      {at("/output/softcap", 30), {"'network.output.softcap'"}},
      {at("/overflows_float16", 1), {"'network.overflows_float16' is 1", "true or false"}},
  });
}

TEST(ModelHeader, WrongTokensAndGeneration) {
  expect_told({
      {[](ModelBuilder& model) { model.header.erase("tokens"); }, {"no object 'tokens'"}},
      {set("generation", "max_source_length", 1), {"'generation.max_source_length' is 1"}},
      {set("tokens", "start", 8), {"'tokens.start' is 8", "from 0 to 7"}},
      {set("tokens", "end", -1), {"'tokens.end' is -1", "from 0 to 7"}},
      {set("tokens", "unknown", 8), {"'tokens.unknown' is 8", "from 0 to 7"}},
      {set("tokens", "added", 7), {"'tokens.added' is 7", "an array"}},
      {set("tokens", "added", json::array({7})), {"'tokens.added' is 7", "an array of objects"}},
      {set("tokens", "added", json::array({{{"id", 8}}})),
       {"'tokens.added.id' is 8", "from 0 to 7"}},
      {set("tokens", "added", json::array({json::object()})), {"no 'tokens.added.id'"}},
      {set("tokens", "added", json::array({{{"id", 5}, {"lstrip", 1}}})),
       {"'tokens.added.lstrip' is 1", "true or false"}},
      {set("tokens", "clean_up_spaces", "no"),
       {"'tokens.clean_up_spaces' is \"no\"", "true or false"}},
      {set("generation", "ends", 0), {"'generation.ends' is 0", "an array"}},
      {set("generation", "ends", json::array({0, 1, 2, 3, 4, 5, 6, 7, 0})),
       {"'generation.ends' has 9 ids", "at most 8"}},
      {set("generation", "ends", json::array({0, 1, 0})),
       {"'generation.ends' is 0", "ids that all differ"}},
      {set("generation", "ends", json::array({8})), {"'generation.ends' is 8", "from 0 to 7"}},
      {set("generation", "do_sample", 1), {"'generation.do_sample' is 1", "true or false"}},
      {set("generation", "beam_size", 257), {"'generation.beam_size' is 257", "from 1 to 256"}},
      {set("generation", "length_penalty", "1"), {"'generation.length_penalty' is \"1\""}},
      {set("generation", "early_stopping", true), {"'generation.early_stopping' is true", "never"}},
      {set("generation", "min_length", -1), {"'generation.min_length' is -1", "from 0"}},
      {set("generation", "no_repeat_ngram", 1.5), {"'generation.no_repeat_ngram' is 1.5"}},
      {set("generation", "repetition_penalty", 0), {"'generation.repetition_penalty' is 0"}},
      {set("generation", "max_length", 0), {"'generation.max_length' is 0"}},
      {set("generation", "forced_first", 8), {"'generation.forced_first' is 8", "from 0 to 7"}},
      {set("generation", "forced_end", 8), {"'generation.forced_end' is 8", "from 0 to 7"}},
      {set("generation", "renormalize", 1), {"'generation.renormalize' is 1", "true or false"}},
      {set("generation", "never_chosen", json::array({7, 8})),
       {"'generation.never_chosen' is 8", "from 0 to 7"}},
      {set("generation", "never_chosen", 7), {"'generation.never_chosen' is 7", "an array"}},
      {erase("generation", "never_chosen"), {"no 'generation.never_chosen'"}},
  });
}

TEST(ModelHeader, WrongTensors) {
  const std::string name = "encoder.0.self.qkv.weight";
  const auto edit = [&](const char* key, json value) -> Edit {
    return [=](ModelBuilder& model) { model.tensor(name)[key] = value; };
  };
  const std::string quoted = "'" + name + "'";
  expect_told({
      {[](ModelBuilder& model) { model.header.erase("tensors"); }, {"no array 'tensors'"}},
      {[](ModelBuilder& model) { model.header["files"] = "none"; }, {"no array 'files'"}},
      {[](ModelBuilder& model) { model.header["tensors"].push_back(5); },
       {"entry of 'tensors' has no name"}},
      {edit("name", 7), {"entry of 'tensors' has no name"}},
      {edit("dtype", "float64"), {quoted, "\"float64\"", "float32, float16, bfloat16 or int8"}},
      {[&](ModelBuilder& model) { model.tensor(name).erase("dtype"); }, {quoted, "dtype missing"}},
      {edit("dtype", "float16"), {quoted, "has 192 bytes", "expected 96"}},
      {edit("shape", {4, 12}), {quoted, "has shape [4, 12]", "expected [12, 4]"}},
      {edit("shape", {48}), {quoted, "has shape [48]", "expected [12, 4]"}},
      {edit("shape", {12, 4, 1}), {quoted, "shape of one or two"}},
      {edit("shape", json::array()), {quoted, "shape of one or two"}},
      {edit("shape", {12, -4}), {quoted, "-4 in its shape"}},
      {edit("shape", {12, 4.0}), {quoted, "4.0 in its shape"}},
      {edit("shape", {std::int64_t{1} << 31, std::int64_t{1} << 31}),
       {quoted, "[2147483648, 2147483648]", "expected [12, 4]"}},
      {edit("shape", {std::int64_t{1} << 32, 4}), {quoted, "4294967296"}},
      {edit("shape", {13, 4}), {quoted, "[13, 4]", "expected [12, 4]"}},
      {edit("bytes", 128), {quoted, "has 128 bytes", "expected 192", "[12, 4]"}},
      {edit("bytes", 0), {quoted, "has 0 bytes", "expected 192"}},
      {edit("offset", 32), {quoted, "offset 32", "multiple of 64"}},
      {edit("offset", std::int64_t{1} << 40), {quoted, "1099511627776 + 192", "expected at most"}},
      {edit("offset", std::uint64_t{18446744073709551552u}),
       {quoted, "18446744073709551552 + 192", "expected at most"}},
      {edit("offset", -64), {quoted, "no whole number 'offset'"}},
      {edit("bytes", 1e3), {quoted, "no whole number 'bytes'"}},
      {edit("bytes", std::uint64_t{18446744073709551615u}), {quoted, "expected at most"}},
      {[&](ModelBuilder& model) { model.remove("tensors", name); },
       {quoted, "is missing", "[12, 4]"}},
      {[&](ModelBuilder& model) { model.header["tensors"].push_back(model.tensor(name)); },
       {quoted, "twice"}},
      {[&](ModelBuilder& model) { model.remove("tensors", "decoder.1.cross.norm_after.bias"); },
       {"'decoder.1.cross.norm_after.bias'", "is missing", "[4]"}},
      {at("/encoder/feed_forward/width", 7),
       {"'encoder.0.feed_forward.up.weight'", "[6, 4]", "[7, 4]"}},
      {at("/encoder/layers", 2), {"'encoder.1.self.qkv.weight'", "is missing"}},
      {at("/decoder/layers", 1), {"'decoder.cross.keys_values.weight'", "[16, 4]", "[8, 4]"}},
  });
}

// A vocabulary that disagrees with the embedding is reported when the model is loaded, whichever of
// the two is wrong.
TEST(ModelHeader, WrongFilesAndVocabularies) {
  const auto pieces = [](std::vector<std::string> list) -> Edit {
    return [=](ModelBuilder& model) { model.replace_file("source.pieces", pieces_table(list)); };
  };
  auto fewer = tiny_pieces(), more = tiny_pieces();
  fewer.pop_back();
  more.push_back("more");
  expect_told({
      {pieces(fewer), {"source.pieces", "7 entries", "expected 8"}},
      {pieces(more), {"source.pieces", "more than 8", "expected 8"}},
      {[](ModelBuilder& model) { model.replace_file("target.pieces", ""); },
       {"target.pieces", "0 entries", "expected 8"}},
      {[](ModelBuilder& model) {
         model.replace_file("target.pieces", std::string("\x05\0\0\0abc", 7));
       },
       {"target.pieces", "entry 0", "5 bytes", "at most 3"}},
      {[](ModelBuilder& model) {
         model.replace_file("target.pieces", std::string("\x01\0\0\0a\x01", 6));
       },
       {"target.pieces", "entry 1", "cut short"}},
      {[](ModelBuilder& model) {
         model.header["network"]["encoder"]["embedding"]["vocabulary"] = 9;
       },
       {"source.pieces", "8 entries", "expected 9"}},
      {[](ModelBuilder& model) {
         model.header["network"]["encoder"]["embedding"]["vocabulary"] = 9;
         auto nine = tiny_pieces();
         nine.push_back("more");
         model.replace_file("source.pieces", pieces_table(nine));
       },
       {"'encoder.embedding.weight'", "[8, 4]", "[9, 4]"}},
      {[](ModelBuilder& model) { model.remove("files", "target.spm"); },
       {"'target.spm'", "missing"}},
      {[](ModelBuilder& model) { model.header["files"].push_back(model.file("target.spm")); },
       {"'target.spm'", "twice"}},
      {[](ModelBuilder& model) { model.replace_file("source.spm", "no model at all"); },
       {"source.spm", "not a SentencePiece model"}},
      {[](ModelBuilder& model) { model.replace_file("target.spm", ""); },
       {"target.spm", "not a SentencePiece model"}},
      {[](ModelBuilder& model) { model.file("source.spm")["offset"] = 1; },
       {"'source.spm'", "offset 1", "multiple of 64"}},
      {[](ModelBuilder& model) { model.file("source.spm")["bytes"] = 1 << 30; },
       {"'source.spm'", "1073741824", "expected at most"}},
      {[](ModelBuilder& model) {
         for (const char* name : {"source.spm", "target.spm"}) {
           json& file = model.file(name);
           file["bytes"] = model.data.size() - (name[0] == 's' ? 0 : 64);
           file["offset"] = name[0] == 's' ? 0 : 64;
         }
       },
       {"the files up to '", "expected at most the ", " of the data"}},
  });
}

}  // namespace
}  // namespace xlate::test
