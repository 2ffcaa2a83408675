// Makes the tokenizer of a model file. models/network.h loads the network.
#pragma once

#include "models/model_file.h"
#include "tokenization/tokenizer.h"

namespace xlate {

/// Returns the file's tokenizer, which reads targets if `reads_targets` is set. It points into the
/// file, which must outlive it. Throws Error if an embedded tokenizer file is missing, cannot be
/// read, or does not fit the network's vocabularies.
Tokenizer load_tokenizer(const ModelFile&, bool reads_targets = false);

}  // namespace xlate
