// Reads the header's "tokenizer" (docs/model-format.md).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "models/section.h"
#include "tokenization/pipeline/description.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Holds what the header says of the tokenizer, without its tables.
struct TokenizerDescription {
  // Without a pipeline, text is read and written by two SentencePiece models.
  std::optional<PipelineDescription> pipeline;
  Template around;
  // The source's language by default, as a code. It is empty if the tokenizer names none.
  std::string source_language;
};

/// Reads the section. `last_source` is the last id of the source vocabulary, and `languages` has
/// the ids of the language tokens by code. Throws Error that names the key, what was expected and
/// what was found.
TokenizerDescription read_tokenizer(const Section&, std::int64_t last_source,
                                    const std::map<std::string, std::int32_t>& languages);

}  // namespace xlate
