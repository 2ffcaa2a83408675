// A model file as the parts that a run needs: the network on a backend, and the tokenizer.
#pragma once

#include <memory>

#include "engine/backend.h"
#include "engine/sequence_model.h"
#include "models/model_file.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// The file's network. Throws Error where a tensor is missing or has another shape.
std::unique_ptr<SequenceModel> load_model(const ModelFile&, Backend&);

/// The file's tokenizer; points into the file, which must outlive it.
Tokenizer load_tokenizer(const ModelFile&);

}  // namespace xlate
