// What a model file says of its model, as plain numbers: network, special ids, generation defaults.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/search_state.h"
#include "models/network_description.h"
#include "tokenization/added_tokens.h"

namespace xlate {

struct SpecialTokens {
  std::int32_t start = 0;  // the decoder's first input
  std::int32_t end = 0;    // of a source
  std::int32_t unknown = 0;
  std::int32_t pad = -1;  // of a target; −1: none
  std::vector<AddedToken> added;
  bool clean_up_spaces = false;  // of the output, as Tokenizer does it
};

/// What the checkpoint asks of search; what it does not say is empty.
struct GenerationDefaults {
  std::int64_t max_source_length = 512;  // source tokens, end token included
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
  std::string architecture = "transformer";
  NetworkDescription network;
  SpecialTokens tokens;
  GenerationDefaults generation;
};

/// Reads and checks the header of a file of that format version. `file` names the file in errors.
/// Throws Error naming the key, what was expected and what was found.
ModelDescription describe(const nlohmann::json& header, std::uint32_t version,
                          const std::string& file);

}  // namespace xlate
