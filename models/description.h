// Holds what the header of a model file says of its model, as plain numbers: the network, the
// special tokens, and the defaults of search. The format is in docs/model-format.md.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/search_state.h"
#include "models/network_description.h"
#include "models/tokenizer_description.h"
#include "tokenization/added_token.h"
#include "tokenization/chat.h"

namespace xlate {

/// Holds the header's "tokens": the ids that have a meaning of their own. A source id is an index
/// into the source vocabulary, and a target id is one into the target vocabulary.
struct SpecialTokens {
  // The decoder's first input is this target id. It is −1 where there is no encoder, because the
  // last token of a prompt is the first input there.
  std::int32_t start = -1;
  // Every source sentence ends with this source id. Nothing ends a prompt: it is −1 where there is
  // no encoder.
  std::int32_t end = -1;
  // A piece that is not in the source vocabulary becomes this source id.
  std::int32_t unknown = 0;
  // This target id is padding, which is no text. −1 means that there is none.
  std::int32_t pad = -1;
  // Users added these tokens to the tokenizer.
  std::vector<AddedToken> added;
  // Takes the spaces before English punctuation out of the output, as Tokenizer::decode says.
  bool clean_up_spaces = false;
  // A multilingual model has a token for each language. These are their target ids by the language
  // codes of the checkpoint's tokenizer. The map is empty in other models.
  std::map<std::string, std::int32_t> languages;
};

/// Holds the header's "generation": what the checkpoint asks of search (the names in parentheses
/// are those of Hugging Face's GenerationConfig). What it does not ask for is absent, −1, empty or
/// false. All ids are target ids, and docs/search.md says what search does with them.
struct GenerationDefaults {
  // A source sentence may have this many tokens, the end token included. Where there is no encoder,
  // this is the context: a prompt and what is generated may together have this many tokens.
  std::int64_t max_source_length = 512;
  // The beam size is the number K of hypotheses that search keeps alive (num_beams).
  std::optional<int> beam_size;
  // The final score of n tokens is their sum of log-probabilities / n^length_penalty.
  std::optional<float> length_penalty;
  std::optional<EarlyStopping> early_stopping;
  // A hypothesis may have this many tokens, the end token included and the start token not counted
  // (max_length counts the start token, max_new_tokens does not).
  std::optional<std::int64_t> max_length;
  // A prompt and the generated tokens may together have this many tokens, the end token included
  // (max_length without max_new_tokens). Only a network without an encoder has it.
  std::optional<std::int64_t> max_total_length;
  // These ids are the only choice for the first token, and for the last token that the limit allows
  // (forced_bos_token_id, forced_eos_token_id).
  std::int32_t forced_first = -1, forced_end = -1;
  // Search never chooses these ids (bad_words_ids of one token, suppress_tokens, pad_token_id).
  std::vector<std::int32_t> never_chosen;
  // Each of these ids, which are at most kMaxEnds, ends a hypothesis (eos_token_id). Without one,
  // only the limit ends it.
  std::vector<std::int32_t> ends;
  // At least this many tokens precede the end token (min_new_tokens; min_length counts the start
  // token and so is larger by one).
  std::optional<std::int64_t> min_length;
  // No sequence of this many ids occurs twice in a hypothesis (no_repeat_ngram_size).
  std::optional<std::int64_t> no_repeat_ngram;
  // Ids that a hypothesis has had become less likely if this is above 1 (repetition_penalty).
  std::optional<float> repetition_penalty;
  // Takes the log-softmax over the ids that may be chosen instead of over all (renormalize_logits).
  bool renormalize = false;
  // These are the checkpoint's settings of random draws (SearchRules::sampling).
  std::optional<float> temperature, top_p;
  std::optional<std::int32_t> top_k;
  // The checkpoint draws tokens at random by default (do_sample). xlate says so and does not do it.
  bool do_sample = false;
};

/// Holds all that a header says of its model, without the lists of tensors and files.
struct ModelDescription {
  // There is no other architecture.
  std::string architecture = "transformer";
  NetworkDescription network;
  SpecialTokens tokens;
  // Without it, the file has two SentencePiece models that are used as Marian uses them, or no text
  // can be read and written.
  std::optional<TokenizerDescription> tokenizer;
  // Prompts of conversations are made by it. A decoder alone with a pipeline can have one.
  std::optional<ChatTemplate> chat;
  GenerationDefaults generation;
};

/// Reads and checks the header of a file of format version 1 or 2. `file` names the file in
/// messages. Throws Error that names the key, what was expected and what was found, also where no
/// backend can compute the network.
ModelDescription describe(const nlohmann::json& header, std::uint32_t version,
                          const std::string& file);

}  // namespace xlate
