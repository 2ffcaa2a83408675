// What a model file says of its model, as plain numbers: architecture, special ids, generation defaults.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/search_state.h"
#include "tokenization/added_tokens.h"

namespace xlate {

/// "config" of an encoder-decoder Transformer (docs/model-format.md).
struct TransformerConfig {
  std::int64_t d_model = 0;
  std::int64_t encoder_layers = 0, decoder_layers = 0;
  std::int64_t encoder_heads = 0, decoder_heads = 0;
  std::int64_t encoder_ffn = 0, decoder_ffn = 0;
  std::int64_t source_vocabulary = 0, target_vocabulary = 0;
  Activation activation = Activation::kRelu;
  float norm_epsilon = 1e-5f;
  float embedding_scale = 1;
  std::int64_t max_source_length = 512;
  std::int64_t encoder_positions = 0, decoder_positions = 0;  // rows of the position tables that the file stores; 0: computed sinusoids
};

struct SpecialTokens {
  std::int32_t start = 0;  // the decoder's first input
  std::int32_t end = 0;    // of a source
  std::int32_t unknown = 0;
  std::int32_t pad = -1;   // of a target; −1: none
  std::vector<AddedToken> added;
  bool clean_up_spaces = false;  // of the output, as Tokenizer does it
};

/// What the checkpoint asks of search; what it does not say is empty.
struct GenerationDefaults {
  std::optional<int> beam_size;
  std::optional<float> length_penalty;
  std::optional<EarlyStopping> early_stopping;
  std::optional<std::int64_t> max_length;
  std::int32_t forced_first = -1, forced_end = -1;
  std::vector<std::int32_t> never_chosen;
  std::int32_t end = -1;  // of a hypothesis; −1: only its limit ends it
  bool renormalize = false;
  bool do_sample = false;  // the checkpoint would sample, which nobody does unasked
};

struct ModelDescription {
  std::string architecture;
  TransformerConfig config;
  SpecialTokens tokens;
  GenerationDefaults generation;
};

/// Reads and checks the header's "architecture", "config", "tokens" and "generation". `file` names the file in errors.
/// Throws Error naming the key, what was expected and what was found.
ModelDescription describe(const nlohmann::json& header, const std::string& file);

/// A value of the header for a message: short, whatever it is. Arrays and objects are named only: they may be nested without end.
std::string brief(const nlohmann::json& value);

}  // namespace xlate
