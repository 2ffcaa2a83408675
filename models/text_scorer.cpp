// Runs the network over packed texts, in batches of which one is computed while the results of the
// batch before it are read.
#include "models/text_scorer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/error.h"
#include "models/packed_sources.h"
#include "models/programs.h"

namespace xlate {
namespace {

std::size_t array_bytes(std::int64_t tokens) {
  return PackedSources::bytes(tokens, tokens) + Arena::bytes_of(1, tokens, sizeof(std::int32_t)) +
         Arena::bytes_of(1, tokens, sizeof(float));
}

// The last token of a text is not read, because nothing follows it. It is only predicted.
std::int64_t tokens_read(const Sentence& text) { return std::ssize(text.ids) - 1; }

}  // namespace

TextScorer::TextScorer(const ModelFile& file, Backend& backend, const ScoringOptions& options)
    : backend_(backend), queue_(backend.make_queue()), options_(options) {
  const NetworkDescription& described = file.description().network;
  if (described.has_encoder())
    fail("{}: texts are scored by models without an encoder", file.name());
  embedding_ = described.decoder.embedding;
  loaded_ = load_network(file, backend, *queue_);
  program_ = scoring_program(loaded_.network);
  options_.batch_tokens = std::max(options.batch_tokens, options.longest);
  options_.pass_tokens = std::min(options.pass_tokens, options_.batch_tokens);
  workspace_ = Workspace(backend, program_, options_.pass_tokens, options_.batch_tokens);
  arrays_ = Arena(backend, array_bytes(options_.batch_tokens));
  backend.prepare(program_, options_.pass_tokens);
}

void TextScorer::run(SentenceInput& input, const Done& done, const std::atomic<bool>& stop) {
  std::optional<Batch> computed;
  const auto hand_over = [&] {
    if (computed) done(finish(std::move(*computed)));
    computed.reset();
  };
  while (!stop) {
    std::vector<Sentence> texts;
    std::int64_t tokens = 0;
    // Before waiting for input, everything that was read is answered.
    while (const Sentence* next = input.next(false)) {
      if (!texts.empty() && tokens + tokens_read(*next) > options_.batch_tokens) break;
      tokens += tokens_read(*next);
      texts.push_back(input.take());
    }
    if (texts.empty()) {
      hand_over();
      if (!input.next(true)) return;
      continue;
    }
    // The arrays of a batch are used again by the next one, in the order of the queue.
    Batch batch = begin(std::move(texts));
    hand_over();
    computed = std::move(batch);
  }
}

TextScorer::Batch TextScorer::begin(std::vector<Sentence> texts) {
  PackedSources packed(embedding_, 0);
  std::vector<std::int32_t> next;
  for (const Sentence& text : texts) {
    const std::span<const std::int32_t> ids(text.ids);
    packed.append(ids.first(ids.size() - 1));
    next.insert(next.end(), ids.begin() + 1, ids.end());
  }
  Batch batch{std::move(texts), nullptr};
  ++statistics_.batches;
  const std::int64_t tokens = packed.tokens();
  if (tokens == 0) return batch;
  arrays_.clear();
  backend_.begin_work(*queue_, Work::kEncode);
  packed.upload(backend_, *queue_, arrays_);
  auto* next_device = arrays_.array<std::int32_t>(tokens);
  auto* out = arrays_.array<float>(tokens);
  backend_.upload(*queue_, std::as_bytes(std::span(next)), next_device);
  for (std::int64_t first = 0; first < tokens; first += options_.pass_tokens) {
    const std::int64_t count = std::min(options_.pass_tokens, tokens - first);
    backend_.run(*queue_, program_, workspace_, packed.pass(first, count));
    backend_.log_probabilities(*queue_, workspace_.rows(program_.out(), count),
                               loaded_.network.projection, next_device + first, out + first);
  }
  batch.log_probabilities = backend_.read_later(
      *queue_,
      {reinterpret_cast<const std::byte*>(out), static_cast<std::size_t>(tokens) * sizeof(float)});
  backend_.end_work(*queue_, Work::kEncode);
  return batch;
}

std::vector<ScoredText> TextScorer::finish(Batch batch) {
  std::span<const std::byte> bytes;
  if (batch.log_probabilities) bytes = batch.log_probabilities->wait();
  std::vector<ScoredText> scored;
  for (Sentence& text : batch.texts) {
    const std::int64_t tokens = tokens_read(text);
    double sum = 0;
    for (std::int64_t i = 0; i < tokens; ++i) {
      float value = 0;
      std::memcpy(&value, bytes.data(), sizeof(value));
      bytes = bytes.subspan(sizeof(value));
      sum += static_cast<double>(value);
    }
    if (!std::isfinite(sum))
      fail(
          "line {}: its probability is not finite: logits of the network in {} are infinite or not "
          "a number",
          text.line + 1, name_of(backend_.compute_type()));
    statistics_.source_tokens += std::ssize(text.ids);
    statistics_.target_tokens += tokens;
    statistics_.target_tokens_without_end += tokens;
    scored.push_back({std::move(text), sum, tokens});
  }
  return scored;
}

RunnerStatistics TextScorer::statistics() const {
  RunnerStatistics statistics = statistics_;
  statistics.seconds = backend_.work_seconds();
  return statistics;
}

}  // namespace xlate
