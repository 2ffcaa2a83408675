// Runs the decoder over packed targets, in batches of which one is computed while the results of
// the batch before it are read.
#include "models/token_scorer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/error.h"
#include "models/programs.h"

namespace xlate {
namespace {

// The bytes of the arrays of a batch whose sentences have so many tokens on either side.
std::size_t array_bytes(std::int64_t tokens) {
  return 2 * PackedSources::bytes(tokens, tokens) +
         Arena::bytes_of(1, tokens, sizeof(std::int32_t)) +
         Arena::bytes_of(1, tokens, sizeof(float));
}

}  // namespace

TokenScorer::TokenScorer(const ModelFile& file, Backend& backend, const ScoringOptions& options)
    : backend_(backend),
      queue_(backend.make_queue()),
      described_(file.description().network),
      loaded_(load_network(file, backend, *queue_)),
      options_(options) {
  const bool encoder = described_.has_encoder();
  // A decoder reads its start tokens, or the prompt, with the target.
  const std::int64_t before = encoder ? 2 : options.longest_source,
                     longest = std::max(options.longest_source, before + options.longest_target);
  options_.batch_tokens = std::max(options.batch_tokens, longest);
  options_.pass_tokens = std::min(options.pass_tokens, options_.batch_tokens);
  sinusoids_ = add_sinusoids(backend, described_, loaded_.network, longest, longest);
  program_ = scoring_program(loaded_.network);
  workspace_ = Workspace(backend, program_, options_.pass_tokens, options_.batch_tokens);
  backend.prepare(program_, options_.pass_tokens);
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
  if (described_.has_encoder()) {
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
  if (!described_.has_encoder()) return sentence.target.empty() ? 1 : std::ssize(sentence.ids);
  return sentence.forced_first >= 0 || options_.forced_first >= 0 ? 2 : 1;
}

// The last token is not read, because nothing follows it. It is only predicted.
std::int64_t TokenScorer::tokens_read(const Sentence& sentence) const {
  const std::int64_t before =
      described_.has_encoder() ? given_ids(sentence) : std::ssize(sentence.ids);
  return before + std::ssize(sentence.target) - 1;
}

void TokenScorer::run(SentenceInput& input, const Done& done, const std::atomic<bool>& stop) {
  std::optional<Batch> computed;
  const auto hand_over = [&] {
    if (computed) done(finish(std::move(*computed)));
    computed.reset();
  };
  while (!stop) {
    std::vector<Sentence> sentences;
    std::int64_t sources = 0, targets = 0;
    while (const Sentence* next = input.next(false)) {
      const std::int64_t source = described_.has_encoder() ? std::ssize(next->ids) : 0,
                         target = tokens_read(*next);
      if (!sentences.empty() &&
          std::max(sources + source, targets + target) > options_.batch_tokens)
        break;
      sources += source, targets += target;
      sentences.push_back(input.take());
    }
    // Before waiting for input, everything that was read is answered.
    if (sentences.empty()) {
      hand_over();
      if (!input.next(true)) return;
      continue;
    }
    // The next batch uses the same memory, in the order of the queue.
    Batch batch = begin(std::move(sentences));
    hand_over();
    computed = std::move(batch);
  }
}

PackedSourceKeys TokenScorer::read_sources(const Batch& batch) {
  sources_ = PackedSources(described_.encoder.embedding, sinusoids_.zeros());
  for (const Sentence& sentence : batch.sentences) sources_.append(sentence.ids);
  sources_.upload(backend_, *queue_, arrays_);
  const PackedRows rows = sources_.pass(0, sources_.tokens());
  backend_.run(*queue_, source_program_, source_workspace_, rows);
  return {source_workspace_.rows(source_program_.out(), rows.count), rows.offsets_host,
          rows.offsets};
}

TokenScorer::Batch TokenScorer::begin(std::vector<Sentence> sentences) {
  Batch batch{std::move(sentences), nullptr};
  ++statistics_.batches;
  PackedSources targets(described_.decoder.embedding, sinusoids_.zeros());
  std::vector<std::int32_t> next;
  std::int64_t longest = 0;
  for (const Sentence& sentence : batch.sentences) {
    const std::vector<std::int32_t> ids = decoder_ids(sentence);
    targets.append(std::span(ids).first(ids.size() - 1));
    next.insert(next.end(), ids.begin() + 1, ids.end());
    longest = std::max({longest, std::ssize(ids), std::ssize(sentence.ids)});
  }
  const std::int64_t tokens = targets.tokens();
  if (tokens == 0) return batch;
  sinusoids_.fill(backend_, *queue_, longest);
  arrays_.clear();
  backend_.begin_work(*queue_, Work::kEncode);
  PackedSourceKeys keys;
  if (described_.has_encoder()) keys = read_sources(batch);
  targets.upload(backend_, *queue_, arrays_);
  auto* next_device = arrays_.array<std::int32_t>(tokens);
  auto* out = arrays_.array<float>(tokens);
  backend_.upload(*queue_, std::as_bytes(std::span(next)), next_device);
  for (std::int64_t first = 0; first < tokens; first += options_.pass_tokens) {
    PackedRows rows = targets.pass(first, std::min(options_.pass_tokens, tokens - first));
    if (described_.has_encoder()) rows.sources = &keys;
    backend_.run(*queue_, program_, workspace_, rows);
    backend_.log_probabilities(*queue_, workspace_.rows(program_.out(), rows.count),
                               loaded_.network.projection, next_device + first, out + first);
  }
  batch.log_probabilities =
      backend_.read_later(*queue_, std::as_bytes(std::span(out, static_cast<std::size_t>(tokens))));
  backend_.end_work(*queue_, Work::kEncode);
  return batch;
}

std::vector<ScoredSentence> TokenScorer::finish(Batch batch) {
  std::span<const std::byte> bytes;
  if (batch.log_probabilities) bytes = batch.log_probabilities->wait();
  std::vector<ScoredSentence> scored;
  for (Sentence& sentence : batch.sentences) {
    const std::int64_t read = tokens_read(sentence), skipped = given_ids(sentence) - 1;
    std::vector<float> values(static_cast<std::size_t>(read));
    const std::size_t size = values.size() * sizeof(float);
    if (size > 0) std::memcpy(values.data(), bytes.data(), size);
    bytes = bytes.subspan(size);
    values.erase(values.begin(), values.begin() + skipped);
    if (!std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); }))
      fail(
          "line {}: a token's probability is not finite: logits of the network in {} are infinite "
          "or not a number",
          sentence.line + 1, name_of(backend_.compute_type()));
    statistics_.source_tokens += std::ssize(sentence.ids);
    statistics_.target_tokens += std::ssize(values);
    statistics_.target_tokens_without_end += std::ssize(values);
    scored.push_back({std::move(sentence), std::move(values)});
  }
  return scored;
}

RunnerStatistics TokenScorer::statistics() const {
  RunnerStatistics statistics = statistics_;
  statistics.seconds = backend_.work_seconds();
  return statistics;
}

}  // namespace xlate
