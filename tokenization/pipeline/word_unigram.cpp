// Segments words with float64 scores, and replaces what no piece stands for.
#include "tokenization/pipeline/word_unigram.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/error.h"

namespace xlate {
namespace {

Viterbi<double> viterbi_of(const SegmentModel& settings, const Pieces& pieces,
                           std::string_view bytes, const std::string& name) {
  const auto size = static_cast<std::size_t>(pieces.size());
  if (bytes.size() != size * sizeof(double))
    fail("{}: scores has {} bytes, expected {} for {} pieces", name, bytes.size(),
         size * sizeof(double), size);
  std::vector<double> scores(size);
  std::memcpy(scores.data(), bytes.data(), bytes.size());
  std::vector<Trie::Key> keys;
  for (std::size_t i = 0; i < size; ++i) {
    const auto id = static_cast<std::int32_t>(i);
    if (std::isnan(scores[i])) continue;
    // If several ids have the same piece, the id that the vocabulary finds is the model's.
    if (!pieces.piece_of(id).empty() && pieces.id_of(pieces.piece_of(id)) == id)
      keys.push_back({pieces.piece_of(id), id});
  }
  return {Trie(std::move(keys)), std::move(scores), settings.unknown_score};
}

}  // namespace

WordUnigram::WordUnigram(const SegmentModel& settings, const Pieces& pieces,
                         std::string_view scores, const std::string& name)
    : settings_(settings), pieces_(pieces), viterbi_(viterbi_of(settings, pieces, scores, name)) {
  if (settings.unknown < 0)
    fail("{}: the tokenizer's unigram model has no unknown id, expected one", name);
  for (unsigned byte = 0; byte < 256; ++byte)
    bytes_[byte] = pieces.id_of_byte(static_cast<unsigned char>(byte));
}

void WordUnigram::segment(std::string_view word, std::vector<std::int32_t>& ids) const {
  constexpr std::size_t kNone = std::string_view::npos;
  std::size_t unknown_from = kNone;
  for (const auto& part : viterbi_.segment(word)) {
    if (part.id == Viterbi<double>::kUnknown) {
      if (unknown_from == kNone) unknown_from = part.begin;
      continue;
    }
    if (unknown_from != kNone)
      append_unknown(word.substr(unknown_from, part.begin - unknown_from), ids);
    unknown_from = kNone;
    ids.push_back(part.id);
  }
  if (unknown_from != kNone) append_unknown(word.substr(unknown_from), ids);
}

// Appends the ids of neighbouring characters that are no pieces. The library joins them and looks
// the result up once more.
void WordUnigram::append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
  const auto id_of_byte = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
  if (const std::int32_t id = pieces_.id_of(text); id >= 0) {
    ids.push_back(id);
  } else if (settings_.byte_fallback && std::all_of(text.begin(), text.end(), [&](char byte) {
               return id_of_byte(byte) >= 0;
             })) {
    for (const char byte : text) ids.push_back(id_of_byte(byte));
  } else {
    ids.push_back(settings_.unknown);
  }
}

}  // namespace xlate
