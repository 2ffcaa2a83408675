// Puts the steps of a pipeline together.
#include "tokenization/pipeline/codec.h"

#include <algorithm>

#include "engine/error.h"

namespace xlate {
namespace {

// SentencePiece writes an unknown piece as this, and so does xlate for every tokenizer.
constexpr const char* kUnknownText = " \u2047 ";

// Returns the added tokens, where those that mark turns are special, too. What is special in the
// output is not decided here.
std::vector<AddedToken> with_marks_special(std::vector<AddedToken> added) {
  for (AddedToken& token : added) token.special |= token.marks_turn;
  return added;
}

std::vector<std::int32_t> special_ids(const std::vector<AddedToken>& added) {
  std::vector<std::int32_t> ids;
  for (const AddedToken& token : added) {
    if (token.special || token.marks_turn) ids.push_back(token.id);
  }
  return ids;
}

bool reads_bytes(const PipelineDescription& pipeline) {
  return std::any_of(pipeline.split.begin(), pipeline.split.end(), [](const SplitStep& step) {
    return step.kind == SplitStep::Kind::kByteLevel;
  });
}

}  // namespace

PipelineCodec::PipelineCodec(const PipelineDescription& pipeline, const Files& files,
                             const Vocabulary& vocabulary, const std::vector<AddedToken>& added)
    : vocabulary_(vocabulary),
      unknown_(files.unknown),
      pieces_(vocabulary, special_ids(added)),
      normalizer_(pipeline.normalize, files.charsmap, files.name),
      splitter_(pipeline.split, files.name),
      decoder_(pipeline.decode, files.name) {
  if (pipeline.model.kind == SegmentModel::Kind::kUnigram)
    unigram_.emplace(pipeline.model, pieces_, files.scores, files.name);
  else
    bpe_.emplace(pipeline.model, pieces_, files.merges, reads_bytes(pipeline), files.name);
  std::vector<AddedToken> tokens, tokens_in_normalized;
  std::vector<std::string> texts, normalized_texts;
  // The first of equal texts counts, which is then never a special token.
  for (const bool special : {false, true}) {
    for (const AddedToken& token : with_marks_special(added)) {
      if (token.special != special) continue;
      const std::string text(vocabulary.piece_of(token.id));
      if (token.normalized && !special) {
        tokens_in_normalized.push_back(token);
        normalized_texts.push_back(normalizer_.normalize(text));
        normalized_texts_.emplace(token.id, normalized_texts.back());
      } else {
        tokens.push_back(token);
        texts.push_back(text);
      }
    }
  }
  added_ = AddedTokenMatcher(std::move(tokens), texts);
  added_in_normalized_ = AddedTokenMatcher(std::move(tokens_in_normalized), normalized_texts);
}

std::vector<std::int32_t> PipelineCodec::encode(std::string_view text,
                                                std::span<const TextRange> special) const {
  std::vector<std::int32_t> ids;
  if (special.empty() && added_.has_only_special()) {
    append_text(text, true, ids);
    return ids;
  }
  for (const AddedTokenMatcher::Stretch& stretch : added_.split(text, special)) {
    if (stretch.id >= 0)
      ids.push_back(stretch.id);
    else
      append_text(text.substr(stretch.begin, stretch.end - stretch.begin), stretch.begin == 0, ids);
  }
  return ids;
}

// Appends the ids of text between the added tokens of a line.
void PipelineCodec::append_text(std::string_view text, bool at_start,
                                std::vector<std::int32_t>& ids) const {
  std::string normalized = normalizer_.normalize(text);
  if (added_in_normalized_.empty()) {
    append_words(std::move(normalized), at_start, ids);
    return;
  }
  for (const AddedTokenMatcher::Stretch& stretch : added_in_normalized_.split(normalized)) {
    if (stretch.id >= 0)
      ids.push_back(stretch.id);
    else
      append_words(normalized.substr(stretch.begin, stretch.end - stretch.begin),
                   at_start && stretch.begin == 0, ids);
  }
}

void PipelineCodec::append_words(std::string text, bool at_start,
                                 std::vector<std::int32_t>& ids) const {
  const Words words = splitter_.split(std::move(text), at_start);
  for (const Words::Word& word : words.words) {
    if (unigram_)
      unigram_->segment(words.at(word), ids);
    else
      bpe_->segment(words.at(word), ids);
  }
}

std::string PipelineCodec::decode(std::span<const std::int32_t> ids) const {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (id == unknown_)
      pieces.emplace_back(kUnknownText);
    else if (const auto found = normalized_texts_.find(id); found != normalized_texts_.end())
      pieces.push_back(found->second);
    else
      pieces.emplace_back(vocabulary_.piece_of(id));
  }
  return decoder_.decode(std::move(pieces));
}

}  // namespace xlate
