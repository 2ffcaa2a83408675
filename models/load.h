// Makes of a model file the two parts that a run needs: the network in a backend's memory, and the
// tokenizer.
#pragma once

#include <memory>

#include "engine/backend.h"
#include "engine/sequence_model.h"
#include "models/model_file.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns the file's network, with its weights in the backend's memory. The model uses the
/// backend, which must outlive it; it does not need the file any more. Throws Error if a tensor is
/// missing or has another shape, or if the backend has too little memory.
std::unique_ptr<SequenceModel> load_model(const ModelFile&, Backend&);

/// Returns the file's tokenizer, which reads targets if `reads_targets` is set. It points into the
/// file, which must outlive it. Throws Error if an embedded tokenizer file is missing, cannot be
/// read, or does not fit the network's vocabularies.
Tokenizer load_tokenizer(const ModelFile&, bool reads_targets = false);

}  // namespace xlate
