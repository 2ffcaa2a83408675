// Gives the embedded files and the special ids of a model file to the tokenizer.
#include "models/load.h"

namespace xlate {

Tokenizer load_tokenizer(const ModelFile& file, bool reads_targets) {
  const ModelDescription& model = file.description();
  // A file has both SentencePiece models or neither: file.file() throws if only one is there.
  const bool has_models = file.has_file("source.spm") || file.has_file("target.spm");
  TokenizerFiles files;
  files.name = file.name();
  files.source_pieces = file.file("source.pieces");
  files.target_pieces = file.file("target.pieces");
  files.source_size = model.network.reader().embedding.vocabulary;
  files.target_size = model.network.decoder.embedding.vocabulary;
  files.end = model.tokens.end;
  files.unknown = model.tokens.unknown;
  files.pad = model.tokens.pad;
  files.added = model.tokens.added;
  files.languages = model.tokens.languages;
  files.chat = model.chat;
  files.reads_targets = reads_targets;
  files.clean_up_spaces = model.tokens.clean_up_spaces;
  const auto table = [&](const char* name) {
    return file.has_file(name) ? file.file(name) : std::string_view();
  };
  if (model.tokenizer) {
    files.pipeline = model.tokenizer->pipeline;
    files.around = model.tokenizer->around;
    files.charsmap = table("charsmap");
    files.scores = table("scores");
    files.merges = table("merges");
  } else if (model.network.has_encoder()) {
    files.around.after = {model.tokens.end};
    files.leading_language_token = true;
  }
  if (has_models || (model.tokenizer && !model.tokenizer->pipeline)) {
    files.source_model = file.file("source.spm");
    files.target_model = file.file("target.spm");
  }
  return Tokenizer(files);
}

}  // namespace xlate
