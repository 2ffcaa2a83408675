// Runs the decoder over packed targets, in batches of which one is computed while the results of
// the batch before it are read.
#include "models/token_scorer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

#include "engine/error.h"

namespace xlate {
namespace {

// Returns the bytes of the arrays of a batch whose sentences have so many tokens on either side.
std::size_t array_bytes(std::int64_t tokens) {
  return 2 * PackedSources::bytes(tokens, tokens) +
         2 * Arena::bytes_of(1, tokens, sizeof(std::int32_t)) +
         Arena::bytes_of(1, tokens, sizeof(float));
}

// Takes the next values off the bytes of a batch.
template <class T>
std::vector<T> take(std::span<const std::byte>& bytes, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  const std::size_t size = values.size() * sizeof(T);
  if (size > 0) std::memcpy(values.data(), bytes.data(), size);
  bytes = bytes.subspan(size);
  return values;
}

}  // namespace

TokenScorer::TokenScorer(LoadedNetwork loaded, Backend& backend, const ScoringOptions& options)
    : backend_(backend),
      queue_(backend.make_queue()),
      loaded_(std::move(loaded)),
      options_(options) {
  backend.order(*loaded_.queue, *queue_);
  const bool encoder = loaded_.described.has_encoder();
  // A decoder reads its start tokens, or the prompt, with the target.
  const std::int64_t before = encoder ? 2 : options.longest_source,
                     longest = std::max(options.longest_source, before + options.longest_target);
  longest_ = longest;
  options_.batch_tokens = std::max(options.batch_tokens, longest);
  options_.pass_tokens = std::min(options.pass_tokens, options_.batch_tokens);
  sinusoids_ = add_sinusoids(backend, loaded_.described, loaded_.network, longest, longest);
  scoring_ = scoring_program(loaded_.network, options.alignment_layer);
  workspace_ = Workspace(backend, scoring_.program, options_.pass_tokens, options_.batch_tokens);
  backend.prepare(scoring_.program, options_.pass_tokens);
  if (encoder) {
    source_program_ = source_program(loaded_.network);
    source_workspace_ =
        Workspace(backend, source_program_, options_.batch_tokens, options_.batch_tokens);
    backend.prepare(source_program_, options_.batch_tokens);
  }
  arrays_ = Arena(backend, array_bytes(options_.batch_tokens));
}

std::vector<std::int32_t> TokenScorer::decoder_ids(const Sentence& sentence) const {
  std::vector<std::int32_t> ids;
  if (loaded_.described.has_encoder()) {
    ids.push_back(options_.start);
    const std::int32_t forced =
        sentence.forced_first >= 0 ? sentence.forced_first : options_.forced_first;
    if (forced >= 0) ids.push_back(forced);
  } else {
    ids = sentence.ids;
  }
  ids.insert(ids.end(), sentence.target.begin(), sentence.target.end());
  return ids;
}

std::int64_t TokenScorer::given_ids(const Sentence& sentence) const {
  if (!loaded_.described.has_encoder())
    return sentence.target.empty() ? 1 : std::ssize(sentence.ids);
  return sentence.forced_first >= 0 || options_.forced_first >= 0 ? 2 : 1;
}

// The last token is not read, because nothing follows it. It is only predicted.
std::int64_t TokenScorer::tokens_read(const Sentence& sentence) const {
  const std::int64_t before =
      loaded_.described.has_encoder() ? given_ids(sentence) : std::ssize(sentence.ids);
  return before + std::ssize(sentence.target) - 1;
}

void TokenScorer::run(SentenceInput& input, const Done& done, const std::atomic<bool>& stop) {
  const auto hand_over = [&] {
    if (computed_.sentences.empty()) return;
    std::vector<ScoredSentence> scored = finish(computed_);
    computed_ = {};
    done(std::move(scored));
  };
  while (!stop) {
    std::int64_t sources = 0, targets = 0;
    while (const Sentence* next = input.next(false)) {
      const std::int64_t source = loaded_.described.has_encoder() ? std::ssize(next->ids) : 0,
                         target = tokens_read(*next);
      if (!begun_.sentences.empty() &&
          std::max(sources + source, targets + target) > options_.batch_tokens)
        break;
      sources += source, targets += target;
      begun_.sentences.push_back(input.take());
    }
    // Before waiting for input, everything that was read is answered.
    if (begun_.sentences.empty()) {
      hand_over();
      if (!input.next(true)) return;
      continue;
    }
    // The batch uses the memory of the one before it, in the order of the queue.
    compute(begun_);
    hand_over();
    computed_ = std::exchange(begun_, {});
  }
}

std::vector<Sentence> TokenScorer::take_unfinished() {
  std::vector<Sentence> sentences = std::move(computed_.sentences);
  sentences.insert(sentences.end(), std::make_move_iterator(begun_.sentences.begin()),
                   std::make_move_iterator(begun_.sentences.end()));
  computed_ = {}, begun_ = {};
  return sentences;
}

PackedSourceKeys TokenScorer::read_sources(const Batch& batch) {
  sources_ = PackedSources(loaded_.described.encoder.embedding, sinusoids_.zeros());
  for (const Sentence& sentence : batch.sentences) sources_.append(sentence.ids);
  sources_.upload(backend_, *queue_, arrays_);
  const PackedRows rows = sources_.pass(0, sources_.tokens());
  backend_.run(*queue_, source_program_, source_workspace_, rows);
  return {source_workspace_.rows(source_program_.out(), rows.count), rows.offsets_host,
          rows.offsets};
}

void TokenScorer::compute(Batch& batch) {
  ++statistics_.batches;
  PackedSources targets(loaded_.described.decoder.embedding, sinusoids_.zeros());
  std::vector<std::int32_t> next;
  std::int64_t longest = 0;
  for (const Sentence& sentence : batch.sentences) {
    const std::vector<std::int32_t> ids = decoder_ids(sentence);
    if (std::ssize(ids) > longest_ || std::ssize(sentence.ids) > longest_)
      fail("line {}: {} and {} tokens to score, expected at most {}", sentence.line + 1,
           sentence.ids.size(), ids.size(), longest_);
    targets.append(std::span(ids).first(ids.size() - 1));
    next.insert(next.end(), ids.begin() + 1, ids.end());
    longest = std::max({longest, std::ssize(ids), std::ssize(sentence.ids)});
  }
  const std::int64_t tokens = targets.tokens();
  if (tokens == 0) return;
  sinusoids_.fill(backend_, *queue_, longest);
  arrays_.clear();
  backend_.begin_work(*queue_, Work::kEncode);
  PackedSourceKeys keys;
  if (loaded_.described.has_encoder()) keys = read_sources(batch);
  targets.upload(backend_, *queue_, arrays_);
  auto* next_device = arrays_.array<std::int32_t>(tokens);
  auto* aligned = arrays_.array<std::int32_t>(tokens);
  auto* out = arrays_.array<float>(tokens);
  backend_.upload(*queue_, std::as_bytes(std::span(next)), next_device);
  for (std::int64_t first = 0; first < tokens; first += options_.pass_tokens) {
    PackedRows rows = targets.pass(first, std::min(options_.pass_tokens, tokens - first));
    if (loaded_.described.has_encoder()) rows.sources = &keys;
    backend_.run(*queue_, scoring_.program, workspace_, rows);
    if (options_.log_probabilities)
      backend_.log_probabilities(*queue_, workspace_.rows(scoring_.program.out(), rows.count),
                                 loaded_.network.projection, next_device + first, out + first);
    if (options_.alignment_layer >= 0) align(rows, aligned + first);
  }
  const auto read = [&](auto* values) {
    return backend_.read_later(*queue_,
                               std::as_bytes(std::span(values, static_cast<std::size_t>(tokens))));
  };
  if (options_.log_probabilities) batch.log_probabilities = read(out);
  if (options_.alignment_layer >= 0) batch.aligned = read(aligned);
  backend_.end_work(*queue_, Work::kEncode);
}

void TokenScorer::align(const PackedRows& rows, std::int32_t* out) {
  const Attention& attention = loaded_.network.decoder.cross;
  const std::int64_t columns = 2 * attention.key_width();
  backend_.align(
      *queue_, workspace_.rows(scoring_.query, rows.count), rows,
      rows.sources->keys_values.column_range(options_.alignment_layer * columns, columns),
      attention, options_.alignment_heads, out);
}

std::vector<ScoredSentence> TokenScorer::finish(Batch& batch) {
  std::span<const std::byte> log_probabilities, aligned;
  if (batch.log_probabilities) log_probabilities = batch.log_probabilities->wait();
  if (batch.aligned) aligned = batch.aligned->wait();
  std::vector<ScoredSentence> scored;
  for (Sentence& sentence : batch.sentences) {
    const std::int64_t read = tokens_read(sentence), skipped = given_ids(sentence) - 1;
    ScoredSentence result{std::move(sentence), {}, {}};
    std::vector<float>& values = result.log_probabilities;
    if (batch.log_probabilities) {
      values = take<float>(log_probabilities, read);
      values.erase(values.begin(), values.begin() + skipped);
    }
    if (batch.aligned) result.aligned = take<std::int32_t>(aligned, read);
    result.not_finite = !std::all_of(values.begin(), values.end(),
                                     [](float value) { return std::isfinite(value); });
    if (result.not_finite && !options_.hands_over_overflows)
      fail(
          "line {}: a token's probability is not finite: logits of the network in {} are infinite "
          "or not a number",
          result.sentence.line + 1, name_of(backend_.compute_type()));
    if (result.not_finite)
      values.clear(), result.aligned.clear();
    else
      count(result);
    scored.push_back(std::move(result));
  }
  return scored;
}

void TokenScorer::count(const ScoredSentence& scored) {
  const std::vector<std::int32_t>& target = scored.sentence.target;
  const std::int64_t tokens = std::ssize(scored.log_probabilities);
  statistics_.source_tokens += std::ssize(scored.sentence.ids);
  statistics_.target_tokens += tokens;
  const bool ended = !target.empty() && target.back() == options_.end;
  statistics_.target_tokens_without_end += tokens - (ended ? 1 : 0);
}

RunnerStatistics TokenScorer::statistics() const {
  RunnerStatistics statistics = statistics_;
  statistics.seconds = backend_.work_seconds();
  return statistics;
}

}  // namespace xlate
