// Gives the embedded files and the special ids of a model file to the tokenizer, and its tensors to
// the Transformer.
#include "models/load.h"

#include "models/transformer.h"

namespace xlate {

std::unique_ptr<SequenceModel> load_model(const ModelFile& file, Backend& backend) {
  return std::make_unique<Transformer>(file, backend);
}

Tokenizer load_tokenizer(const ModelFile& file) {
  const ModelDescription& model = file.description();
  // A file has both SentencePiece models or neither: file.file() throws if only one is there.
  const bool has_text = file.has_file("source.spm") || file.has_file("target.spm");
  return Tokenizer(
      {.name = file.name(),
       .source_model = has_text ? std::optional(file.file("source.spm")) : std::nullopt,
       .target_model = has_text ? std::optional(file.file("target.spm")) : std::nullopt,
       .source_pieces = file.file("source.pieces"),
       .target_pieces = file.file("target.pieces"),
       .source_size = model.network.encoder.embedding.vocabulary,
       .target_size = model.network.decoder.embedding.vocabulary,
       .end = model.tokens.end,
       .unknown = model.tokens.unknown,
       .pad = model.tokens.pad,
       .added = model.tokens.added,
       .clean_up_spaces = model.tokens.clean_up_spaces});
}

}  // namespace xlate
