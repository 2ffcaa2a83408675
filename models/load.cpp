#include "models/load.h"

#include "models/transformer.h"

namespace xlate {

// A second architecture is told apart here, by description().architecture.
std::unique_ptr<SequenceModel> load_model(const ModelFile& file, Backend& backend) { return std::make_unique<Transformer>(file, backend); }

Tokenizer load_tokenizer(const ModelFile& file) {
  const ModelDescription& model = file.description();
  return Tokenizer({.name = file.name(),
                    .source_model = file.file("source.spm"),
                    .target_model = file.file("target.spm"),
                    .source_pieces = file.file("source.pieces"),
                    .target_pieces = file.file("target.pieces"),
                    .source_size = model.config.source_vocabulary,
                    .target_size = model.config.target_vocabulary,
                    .end = model.tokens.end,
                    .unknown = model.tokens.unknown,
                    .pad = model.tokens.pad,
                    .added = model.tokens.added,
                    .clean_up_spaces = model.tokens.clean_up_spaces});
}

}  // namespace xlate
