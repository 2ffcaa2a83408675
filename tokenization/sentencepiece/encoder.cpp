// Implements the lookup of a model's pieces.
#include "tokenization/sentencepiece/encoder.h"

namespace xlate {

SentencePieceEncoder::SentencePieceEncoder(std::string_view model, const std::string& name,
                                           const Vocabulary& vocabulary, std::int32_t unknown)
    : vocabulary_(vocabulary), segmenter_(model, name), unknown_(unknown) {
  for (const std::string_view piece : segmenter_.pieces()) ids_of_model_.push_back(id_of(piece));
}

void SentencePieceEncoder::append(std::string_view text, std::vector<std::int32_t>& ids) const {
  const Segmentation segments = segmenter_.segment(text);
  auto unknown = segments.unknown.begin();
  for (const int id : segments.ids) {
    ids.push_back(id == segmenter_.unknown() ? id_of(*unknown++)
                                             : ids_of_model_[static_cast<std::size_t>(id)]);
  }
}

}  // namespace xlate
