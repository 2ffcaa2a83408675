#include "models/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/error.h"

namespace xlate {
namespace {

// Sentences that grow little by little should not each compute a row.
constexpr std::int64_t kPositionsAtOnce = 64;

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

/// Packed sentences on their way through the encoder, and their cross-attention keys and values until they are installed.
struct Transformer::Batch final : Encoded {
  std::vector<std::int32_t> offsets;           // [B + 1]
  std::vector<std::int32_t> limits;            // [B]
  const std::int32_t* positions = nullptr;     // [N], device
  std::int32_t* token_slots = nullptr;         // [N], device: filled when the slots are known
  Tensor keys_values;                          // [N, layers·2·D]
};

Transformer::Transformer(const ModelFile& file, Backend& backend)
    : backend_(backend), queue_(backend.make_queue()), described_(file.description().network) {
  LoadedNetwork loaded = load_network(file, backend, *queue_);
  network_ = std::move(loaded.network);
  weights_ = std::move(loaded.memory);
}

// Room for the positions that the model does not store.
void Transformer::make_sinusoids() {
  const auto computed = [](const StackDescription& stack, std::int64_t longest) { return stack.embedding.positions == Positions::kSinusoidal ? longest : 0; };
  const std::int64_t source = computed(described_.encoder, capacity_.longest_source), target = computed(described_.decoder, capacity_.longest_target);
  const std::int64_t rows = std::max(source, target), width = network_.decoder.width;
  positions_filled_ = 0;
  sinusoids_memory_ = rows > 0 ? backend_.allocate(static_cast<std::size_t>(rows * width) * sizeof(float)) : Buffer();
  sinusoids_ = {sinusoids_memory_.data(), DType::kFloat32, rows, width, width};
  if (source > 0) network_.encoder.embedding.positions = sinusoids_;
  if (target > 0) network_.decoder.embedding.positions = sinusoids_;
}

// Sine in the first half, cosine in the second, angle p / 10000^(j/rate); in double, kept in float32 (docs/search.md). Only as many as a
// sentence has needed so far: the longest one allowed seldom comes.
void Transformer::fill_positions(std::int64_t count) {
  if (count <= positions_filled_) return;
  count = std::min((count + kPositionsAtOnce - 1) / kPositionsAtOnce * kPositionsAtOnce, sinusoids_.rows);
  const EmbeddingDescription& wanted = described_.encoder.embedding.positions == Positions::kSinusoidal ? described_.encoder.embedding : described_.decoder.embedding;
  const std::int64_t width = network_.decoder.width, half = width / 2;
  std::vector<double> rates(static_cast<std::size_t>(half));
  for (std::int64_t j = 0; j < half; ++j) rates[static_cast<std::size_t>(j)] = std::pow(10000.0, static_cast<double>(j) / wanted.rate);
  std::vector<float> row(static_cast<std::size_t>(width));
  for (std::int64_t p = positions_filled_; p < count; ++p) {
    for (std::int64_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(p + wanted.offset) / rates[static_cast<std::size_t>(j)];
      row[static_cast<std::size_t>(j)] = static_cast<float>(std::sin(angle));
      row[static_cast<std::size_t>(half + j)] = static_cast<float>(std::cos(angle));
    }
    backend_.upload(*queue_, bytes_of(row), static_cast<float*>(sinusoids_.data) + p * width);
  }
  positions_filled_ = count;
}

std::size_t Transformer::encoder_bytes(std::int64_t tokens, std::int64_t sentences) const {
  const std::int64_t width = network_.decoder.width, columns[] = {3 * width, 2 * width * described_.decoder.layers};
  std::size_t bytes = 3 * Arena::bytes_of(1, tokens, sizeof(std::int32_t)) + Arena::bytes_of(1, sentences + 1, sizeof(std::int32_t));
  for (const std::int64_t count : columns) bytes += Arena::bytes_of(tokens, count, size_of(backend_.compute_type()));
  return bytes + layer_bytes(tokens, network_.encoder.inner);
}

std::size_t Transformer::decoder_bytes(std::int64_t rows) const {
  const std::int64_t width = network_.decoder.width, columns[] = {3 * width, width};
  std::size_t bytes = 0;
  for (const std::int64_t count : columns) bytes += Arena::bytes_of(rows, count, size_of(backend_.compute_type()));
  return bytes + layer_bytes(rows, network_.decoder.inner);
}

// What 16-bit types lose in the residual stream costs the most lines (docs/benchmarks.md).
bool Transformer::keeps_rest() const { return size_of(backend_.compute_type()) == 2; }

std::size_t Transformer::layer_bytes(std::int64_t rows, std::int64_t inner) const {
  const std::int64_t width = network_.decoder.width;
  const std::size_t element = size_of(backend_.compute_type());
  return 2 * Arena::bytes_of(rows, width, element) + Arena::bytes_of(rows, width, sizeof(float)) + Arena::bytes_of(rows, inner, element) + (keeps_rest() ? Arena::bytes_of(rows, width, 1) : 0);
}

Transformer::LayerRows Transformer::layer_rows(Arena& arena, std::int64_t rows, std::int64_t inner) const {
  const DType type = backend_.compute_type();
  const std::int64_t width = network_.decoder.width;
  LayerRows all{.x = arena.tensor(type, rows, width), .between = arena.tensor(DType::kFloat32, rows, width), .context = arena.tensor(type, rows, width), .inner = arena.tensor(type, rows, inner)};
  if (keeps_rest()) all.x.rest = arena.tensor(DType::kInt8, rows, width);
  return all;
}

CacheShape Transformer::cache_shape() const {
  const double working_bytes = static_cast<double>(encoder_bytes(1024, 1024) + decoder_bytes(1024)) / 1024.0;
  return {.layers = described_.decoder.layers,
          .width = network_.decoder.width,
          .source_keys = true,
          .working_bytes = working_bytes};
}

void Transformer::make_room(const Capacity& capacity) {
  capacity_ = capacity;
  make_sinusoids();
  encoder_arena_ = Arena(backend_, encoder_bytes(capacity.encoder_tokens, capacity.encoder_tokens));
  decoder_arena_ = Arena(backend_, decoder_bytes(capacity.slots * capacity.beams));
}

void Transformer::begin(const CacheViews& caches) {
  caches_ = caches;
  announce_products();
}

// One layer's: they are alike.
void Transformer::announce_products() const {
  const std::int64_t encoder_rows = capacity_.encoder_tokens, decoder_rows = capacity_.slots * capacity_.beams;
  std::vector<ExpectedLinear> list;
  const auto add = [&](const Linear& layer, std::int64_t rows, Activation activation = Activation::kNone) { list.push_back({&layer, activation, false, rows}); };
  const auto add_normed = [&](const Linear& layer, std::int64_t rows) { list.push_back({&layer, Activation::kNone, true, rows}); };
  const auto add_feed_forward = [&](const Stack& stack, const FeedForward& layer, std::int64_t rows) {
    add(layer.up, rows, stack.activation);
    add_normed(layer.down, rows);
  };
  const EncoderLayer& encoder = network_.encoder_layers.front();
  add(encoder.self.queries_keys_values, encoder_rows);
  add_normed(encoder.self.out, encoder_rows);
  add_feed_forward(network_.encoder, encoder.feed_forward, encoder_rows);
  add(network_.source_keys_values, encoder_rows);
  const DecoderLayer& decoder = network_.decoder_layers.front();
  add(decoder.self.queries_keys_values, decoder_rows);
  add_normed(decoder.self.out, decoder_rows);
  add(decoder.source.query, decoder_rows);
  add_normed(decoder.source.out, decoder_rows);
  add_feed_forward(network_.decoder, decoder.feed_forward, decoder_rows);
  backend_.expect(list);
}

void Transformer::run_embedding_norm(Queue& queue, const Stack& stack, const LayerRows& rows) {
  if (stack.embedding_norm.gain) backend_.layer_norm(queue, rows.x.rounded, {}, stack.embedding_norm, rows.x);
}

void Transformer::run_feed_forward(Queue& queue, const Stack& stack, const FeedForward& layer, const LayerRows& rows) {
  backend_.linear(queue, rows.x.rounded, layer.up, stack.activation, {}, rows.inner);
  backend_.linear_norm(queue, rows.inner, layer.down, rows.x, layer.after, rows.between, rows.x);
}

std::unique_ptr<Encoded> Transformer::encode(Queue& queue, std::span<const Source> sources) {
  for (const Source& source : sources) fill_positions(static_cast<std::int64_t>(source.ids.size()));
  backend_.order(*queue_, queue);  // of them
  auto batch = std::make_unique<Batch>();
  std::vector<std::int32_t> ids, positions;
  batch->offsets.push_back(0);
  for (const Source& source : sources) {
    ids.insert(ids.end(), source.ids.begin(), source.ids.end());
    for (std::size_t i = 0; i < source.ids.size(); ++i) positions.push_back(static_cast<std::int32_t>(i));
    batch->offsets.push_back(static_cast<std::int32_t>(ids.size()));
    batch->limits.push_back(source.limit);
  }
  const std::int64_t tokens = static_cast<std::int64_t>(ids.size()), width = network_.decoder.width;
  assert(tokens <= capacity_.encoder_tokens);

  Arena& arena = encoder_arena_;
  arena.clear();
  auto* ids_device = arena.array<std::int32_t>(tokens);
  auto* positions_device = arena.array<std::int32_t>(tokens);
  auto* offsets_device = arena.array<std::int32_t>(static_cast<std::int64_t>(batch->offsets.size()));
  batch->token_slots = arena.array<std::int32_t>(tokens);
  batch->positions = positions_device;
  backend_.upload(queue, bytes_of(ids), ids_device);
  backend_.upload(queue, bytes_of(positions), positions_device);
  backend_.upload(queue, bytes_of(batch->offsets), offsets_device);

  const DType type = backend_.compute_type();
  const LayerRows rows = layer_rows(arena, tokens, network_.encoder.inner);
  const Tensor qkv = arena.tensor(type, tokens, 3 * width);
  batch->keys_values = arena.tensor(type, tokens, 2 * width * described_.decoder.layers);
  backend_.embed(queue, network_.encoder.embedding, ids_device, positions_device, rows.x);
  run_embedding_norm(queue, network_.encoder, rows);
  for (const EncoderLayer& layer : network_.encoder_layers) {
    backend_.linear(queue, rows.x.rounded, layer.self.queries_keys_values, Activation::kNone, {}, qkv);
    backend_.attend_packed(queue, qkv, batch->offsets, offsets_device, network_.encoder.heads, rows.context);
    backend_.linear_norm(queue, rows.context, layer.self.out, rows.x, layer.self.after, rows.between, rows.x);
    run_feed_forward(queue, network_.encoder, layer.feed_forward, rows);
  }
  backend_.linear(queue, rows.x.rounded, network_.source_keys_values, Activation::kNone, {}, batch->keys_values);
  return batch;
}

void Transformer::install(Queue& queue, const Encoded& encoded, std::int64_t first, std::span<const std::int32_t> slots) {
  const auto& batch = static_cast<const Batch&>(encoded);
  std::vector<std::int32_t> token_slots;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto sentence = static_cast<std::size_t>(first) + i;
    const std::int32_t length = batch.offsets[sentence + 1] - batch.offsets[sentence];
    token_slots.insert(token_slots.end(), static_cast<std::size_t>(length), slots[i]);
    fill_positions(batch.limits[sentence]);
  }
  backend_.order(*queue_, queue);  // of them
  const std::int64_t first_token = batch.offsets[static_cast<std::size_t>(first)], tokens = static_cast<std::int64_t>(token_slots.size());
  backend_.upload(queue, bytes_of(token_slots), batch.token_slots + first_token);
  backend_.store_cross(queue, batch.keys_values.row_range(first_token, tokens), batch.token_slots + first_token,
                       batch.positions + first_token, caches_.source);
}

Tensor Transformer::step(Queue& queue, const SearchState& state, const StepRows& rows) {
  const std::int64_t count = rows.rows(), width = network_.decoder.width;
  const DType type = backend_.compute_type();
  const int heads = network_.decoder.heads;
  decoder_arena_.clear();
  const LayerRows all = layer_rows(decoder_arena_, count, network_.decoder.inner);
  const Tensor qkv = decoder_arena_.tensor(type, count, 3 * width), query = decoder_arena_.tensor(type, count, width);
  backend_.begin_step(queue, caches_.own.front(), caches_.source.front(), caches_.source_lengths, state, rows);
  backend_.embed_step(queue, network_.decoder.embedding, state, rows, all.x);
  run_embedding_norm(queue, network_.decoder, all);
  for (std::size_t i = 0; i < network_.decoder_layers.size(); ++i) {
    const DecoderLayer& layer = network_.decoder_layers[i];
    backend_.linear(queue, all.x.rounded, layer.self.queries_keys_values, Activation::kNone, {}, qkv);
    backend_.attend_self(queue, qkv, caches_.own[i], state, rows, heads, all.context);
    backend_.linear_norm(queue, all.context, layer.self.out, all.x, layer.self.after, all.between, all.x);
    backend_.linear(queue, all.x.rounded, layer.source.query, Activation::kNone, {}, query);
    backend_.attend_cross(queue, query, caches_.source[i], caches_.source_lengths, rows, heads, all.context);
    backend_.linear_norm(queue, all.context, layer.source.out, all.x, layer.source.after, all.between, all.x);
    run_feed_forward(queue, network_.decoder, layer.feed_forward, all);
  }
  return all.x.rounded;
}

}  // namespace xlate
