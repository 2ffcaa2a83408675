// Chooses who segments text: the classes beside this one, or the SentencePiece library in parts of
// bounded length.
#include "tokenization/sentencepiece/segmenter.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <iterator>

#include "engine/error.h"
#include "tokenization/sentencepiece/bpe.h"
#include "tokenization/sentencepiece/model.h"
#include "tokenization/sentencepiece/normalizer.h"
#include "tokenization/sentencepiece/unigram.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

void check(const sentencepiece::util::Status& status) {
  if (!status.ok()) fail("SentencePiece: {}", status.ToString());
}

// The library gets about this many bytes at once. It joins neighbouring characters that it does
// not know to one piece, in time that grows with the square of their number: 1 MB of a script that
// a model was not made for took 26 s. A sentence is far shorter than this.
constexpr std::size_t kPart = 64 * 1024;

// Returns the bytes of the first part of a normalized text. It ends at the last mark in the text's
// second half, or at the end of a character if there is none.
std::size_t first_part(std::string_view text, bool marks_end_words) {
  if (text.size() <= kPart) return text.size();
  const std::size_t mark = text.rfind(kMark, kPart);
  if (mark != std::string_view::npos && mark > kPart / 2)
    return marks_end_words ? mark + kMark.size() : mark;
  return without_cut_character(text.substr(0, kPart)).size();
}

}  // namespace

Segmenter::Segmenter(std::string_view bytes, const std::string& name) {
  SentencePieceModel model = SentencePieceModel::read(bytes, name);
  for (const auto& piece : model.pieces) pieces_.push_back(piece.text);
  unknown_ = model.unknown;
  if (model.algorithm == SentencePieceModel::Algorithm::kUnigram) {
    unigram_ = std::make_unique<const Unigram>(std::move(model), name);
    return;
  }
  if (model.algorithm == SentencePieceModel::Algorithm::kBpe &&
      SentencePieceBpe::can_segment(model)) {
    bpe_ = std::make_unique<const SentencePieceBpe>(std::move(model), name);
    return;
  }
  auto library = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const std::string plain = SentencePieceModel::without_normalization(bytes, name);
  if (const auto status = library->LoadFromSerializedProto(plain); !status.ok())
    fail("{}: not a SentencePiece model: {}", name, status.ToString());
  normalizer_ = std::make_unique<const Normalizer>(model, name);
  // The library splits text for a model of words in front of marks, whatever its settings say.
  marks_end_words_ = model.normalization.whitespace_as_suffix &&
                     model.algorithm != SentencePieceModel::Algorithm::kWord;
  library_ = std::move(library);
}

Segmenter::~Segmenter() = default;
Segmenter::Segmenter(Segmenter&&) noexcept = default;

Segmentation Segmenter::segment(std::string_view text) const {
  Segmentation out;
  if (unigram_) {
    unigram_->segment(text, out);
    return out;
  }
  if (bpe_) {
    bpe_->segment(text, out);
    return out;
  }
  const std::string normalized = normalizer_->normalize(text);
  for (std::string_view rest = normalized; !rest.empty();) {
    const std::size_t bytes = first_part(rest, marks_end_words_);
    segment_by_library(rest.substr(0, bytes), out);
    rest.remove_prefix(bytes);
  }
  return out;
}

// The library gives ids or pieces, but not both at once. The pieces are needed only where an id is
// the unknown one.
void Segmenter::segment_by_library(std::string_view text, Segmentation& out) const {
  std::vector<int> ids;
  check(library_->Encode(text, &ids));
  out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  if (std::find(ids.begin(), ids.end(), unknown_) == ids.end()) return;
  std::vector<std::string> pieces;
  check(library_->Encode(text, &pieces));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == unknown_) out.unknown.push_back(std::move(pieces[i]));
  }
}

}  // namespace xlate
