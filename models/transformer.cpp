// Encodes batches of sources or reads batches of prompts, installs them in slots, and hands
// decoding steps to search.
#include "models/transformer.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "engine/search.h"
#include "models/packed_sources.h"
#include "models/programs.h"

namespace xlate {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

// Describes a batch of B sentences of which N tokens were read. The keys and values that were
// computed of them stay in the workspace until the next batch is read.
struct Transformer::EncodedBatch final : Encoded {
  explicit EncodedBatch(PackedSources packed) : packed(std::move(packed)) {}
  PackedSources packed;
  std::vector<std::int32_t> limits;  // [B]
  // [N], device; install() fills it, when the slots are known.
  std::int32_t* token_slots = nullptr;
};

Transformer::Transformer(LoadedNetwork loaded, Backend& backend)
    : backend_(backend), queue_(backend.make_queue()), loaded_(std::move(loaded)) {
  backend.order(*loaded_.queue, *queue_);
}

// A source is read in one pass, because its tokens see those behind them.
std::int64_t Transformer::pass_tokens() const {
  return loaded_.network.has_encoder() ? capacity_.encoder_tokens : capacity_.pass_tokens;
}

std::size_t Transformer::index_bytes(std::int64_t tokens, std::int64_t sentences) {
  return PackedSources::bytes(tokens, sentences) + Arena::bytes_of(1, tokens, sizeof(std::int32_t));
}

// The working bytes are an estimate: each source token in flight counts as one row of the source's
// workspace and one of the step's, with its indices. The bytes of 1024 rows are divided by 1024, so
// that the rounding up of each allocation hardly counts.
CacheShape Transformer::cache_shape() const {
  constexpr std::int64_t kRows = 1024;
  const DType type = backend_.compute_type();
  const std::size_t bytes = index_bytes(kRows, kRows) +
                            Workspace::bytes(source_program(loaded_.network), type, kRows, kRows) +
                            Workspace::bytes(step_program(loaded_.network), type, kRows, kRows);
  return {.layers = loaded_.described.decoder.layers,
          .width = loaded_.network.decoder.self.key_width(),
          .source_keys = loaded_.network.has_encoder() ? SourceKeys::kCross : SourceKeys::kShared,
          .working_bytes = static_cast<double>(bytes) / static_cast<double>(kRows)};
}

void Transformer::allocate(const Capacity& capacity) {
  capacity_ = capacity;
  sinusoids_ = add_sinusoids(backend_, loaded_.described, loaded_.network, capacity.longest_source,
                             capacity.longest_target);
  source_program_ = source_program(loaded_.network);
  step_program_ = step_program(loaded_.network);
  indices_ = Arena(backend_, index_bytes(capacity.encoder_tokens, capacity.encoder_tokens));
  source_workspace_ = Workspace(backend_, source_program_, pass_tokens(), capacity.encoder_tokens);
  const std::int64_t rows = capacity.slots * capacity.beams;
  step_workspace_ = Workspace(backend_, step_program_, rows, rows);
}

void Transformer::begin(const PagedCaches& caches) {
  caches_ = caches;
  backend_.prepare(source_program_, pass_tokens());
  backend_.prepare(step_program_, capacity_.slots * capacity_.beams);
}

std::unique_ptr<Encoded> Transformer::encode(Queue& queue,
                                             std::span<const SourceSentence> sources) {
  for (const SourceSentence& source : sources)
    sinusoids_.fill(backend_, *queue_, static_cast<std::int64_t>(source.ids.size()));
  // The encoder reads the positions, which were copied on the loading queue.
  backend_.order(*queue_, queue);
  auto batch = std::make_unique<EncodedBatch>(
      PackedSources(loaded_.described.reader().embedding, sinusoids_.zeros()));
  for (const SourceSentence& source : sources) {
    // The last token of a prompt enters the network in the first decoding step.
    batch->packed.append(
        source.ids.first(source.ids.size() - (loaded_.network.has_encoder() ? 0 : 1)));
    batch->limits.push_back(source.limit);
  }
  const std::int64_t tokens = batch->packed.tokens();
  assert(tokens <= capacity_.encoder_tokens);
  // Prompts may have one token each.
  if (tokens == 0) return batch;
  indices_.clear();
  batch->packed.upload(backend_, queue, indices_);
  batch->token_slots = indices_.array<std::int32_t>(tokens);
  const std::int64_t most = pass_tokens();
  for (std::int64_t first = 0; first < tokens; first += most)
    backend_.run(queue, source_program_, source_workspace_,
                 batch->packed.pass(first, std::min(most, tokens - first)));
  return batch;
}

void Transformer::install(Queue& queue, const Encoded& encoded, std::int64_t first,
                          std::span<const std::int32_t> slots) {
  const auto& batch = static_cast<const EncodedBatch&>(encoded);
  const std::vector<std::int32_t>& offsets = batch.packed.offsets();
  std::vector<std::int32_t> token_slots;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto sentence = static_cast<std::size_t>(first) + i;
    const std::int32_t length = offsets[sentence + 1] - offsets[sentence];
    token_slots.insert(token_slots.end(), static_cast<std::size_t>(length), slots[i]);
    sinusoids_.fill(backend_, *queue_, batch.limits[sentence]);
  }
  // The decoding steps that follow on this queue read the positions.
  backend_.order(*queue_, queue);
  const std::int64_t first_token = offsets[static_cast<std::size_t>(first)],
                     tokens = static_cast<std::int64_t>(token_slots.size());
  if (tokens == 0) return;
  backend_.upload(queue, bytes_of(token_slots), batch.token_slots + first_token);
  const Tensor keys_values = source_workspace_.rows(source_program_.out(), first_token + tokens)
                                 .row_range(first_token, tokens);
  backend_.store_keys(queue, keys_values, batch.token_slots + first_token,
                      batch.packed.positions() + first_token,
                      loaded_.network.has_encoder() ? caches_.cross : caches_.shared);
}

void Transformer::step(const StepRows& rows, Search& search) {
  search.step(step_program_, step_workspace_, caches_, rows, loaded_.network.projection);
}

}  // namespace xlate
