// Computes attention on the CPU: self-attention over packed sentences for the encoder, and
// self-attention and cross-attention over pages of cached keys and values for the decoder.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "engine/cpu/attention_loops.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

// The queries of a long sentence are taken in blocks, so that the scores need [kQueryBlock,
// sentence length] floats instead of the square of the length.
constexpr std::int64_t kQueryBlock = 64;

// Returns the biases of one head for n keys from position `first` on and a query at position
// `query`, or null if attention has none. Keys further away than the table of a distance bias
// reaches have the bias at its end.
const float* biases_of(const Attention& attention, int head, std::int64_t query, std::int64_t first,
                       std::int64_t n, std::vector<float>& memory) {
  const Tensor& table = attention.distance_bias;
  if (!table && !attention.slopes) return nullptr;
  memory.assign(static_cast<std::size_t>(n), 0);
  if (table) {
    const std::int64_t most = table.columns / 2;
    const float* middle = table.as<float>() + head * table.stride + most;
    for (std::int64_t t = 0; t < n; ++t)
      memory[static_cast<std::size_t>(t)] = middle[std::clamp(first + t - query, -most, most)];
  }
  if (attention.slopes) {
    const float slope = attention.slopes.as<float>()[head];
    for (std::int64_t t = 0; t < n; ++t)
      memory[static_cast<std::size_t>(t)] += slope * static_cast<float>(first + t - query);
  }
  return memory.data();
}

// Returns the first position that a query at `position` sees.
std::int64_t first_seen(const Attention& attention, std::int64_t position) {
  return attention.window > 0 ? std::max<std::int64_t>(0, position - attention.window + 1) : 0;
}

// Returns where the cache holds the key of position t of a slot for a beam. The value follows
// cache.pages.columns / 2 elements behind it.
void* cached_row(const PagedCache& cache, std::int64_t slot, std::int64_t t, std::int64_t beam) {
  const std::int64_t page = cache.table[slot * cache.pages_per_slot + t / cache.page_tokens],
                     token = page * cache.page_tokens + t % cache.page_tokens;
  return cache.pages.row_range(token * cache.keys_per_token + beam, 1).data;
}

// Writes a row of keys and values in the type of the cache.
void store_row(const float* row, const PagedCache& cache, void* cached) {
  const std::int64_t columns = cache.pages.columns;
  assert(cache.pages.dtype == DType::kFloat32 || cache.pages.dtype == DType::kBFloat16);
  if (cache.pages.dtype == DType::kBFloat16)
    round_row(row, columns, static_cast<std::uint16_t*>(cached));
  else
    std::copy_n(row, columns, static_cast<float*>(cached));
}

// Attends with all heads of one row over the keys that scratch.rows points at. For biases, which
// self-attention alone has, the row is at the position of the last key.
void attend_heads(const float* query, const Attention& attention, DType type, Scratch& scratch,
                  float* out) {
  const auto n = std::ssize(scratch.rows);
  const AttentionLoops& loops = attention_loops();
  const KeyRows keys{.keys = scratch.rows.data(),
                     .type = type,
                     .count = n,
                     .key_heads = attention.key_width() / attention.head,
                     .head = attention.head,
                     .group = attention.group()};
  float* scores = scratch.numbers_of(attention.heads * n + attention.width());
  loops.score(query, keys, scores + attention.heads * n, scores);
  for (int head = 0; head < attention.heads; ++head)
    softmax_row(scores + head * n, attention.scale, attention.softcap,
                biases_of(attention, head, n - 1, 0, n, scratch.biases), n);
  loops.mix(scores, keys, out);
}

// Makes weights of the scores of the query at `position`, [length], of which the keys from `first`
// up to, but not including, `end` are seen. The weights of the other keys are 0.
void weigh(float* scores, std::int64_t length, std::int64_t first, std::int64_t end,
           const Attention& attention, int head, std::int64_t position,
           std::vector<float>& biases) {
  std::fill(scores, scores + first, 0.0f);
  softmax_row(scores + first, attention.scale, attention.softcap,
              biases_of(attention, head, position, first, end - first, biases), end - first);
  std::fill(scores + end, scores + length, 0.0f);
}

// Holds the scores of a block of queries and the keys of one head. The keys are transposed, so that
// many scores of a query are summed at a time.
class BlockScores {
 public:
  BlockScores(Scratch& scratch, std::int64_t queries, std::int64_t keys, std::int64_t width)
      : stride((keys + kMultiple - 1) / kMultiple * kMultiple),
        queries_(queries),
        keys_(keys),
        width_(width),
        scores_(scratch.numbers_of((queries + width) * stride)),
        transposed_(scores_ + queries * stride) {
    // Scores are computed of these columns, too, but are not used.
    for (std::int64_t i = 0; i < width; ++i)
      std::fill(transposed_ + i * stride + keys, transposed_ + (i + 1) * stride, 0.0f);
  }
  void take_keys(const float* keys, std::int64_t key_stride) {
    attention_loops().transpose(keys, key_stride, keys_, width_, transposed_, stride);
  }
  void compute(const float* queries, std::int64_t query_stride) {
    attention_loops().multiply(queries_, stride, width_, queries, query_stride, transposed_, stride,
                               scores_, stride);
  }
  float* row(std::int64_t query) { return scores_ + query * stride; }

  const std::int64_t stride;

 private:
  static constexpr std::int64_t kMultiple = 32;
  const std::int64_t queries_, keys_, width_;
  float* const scores_;
  float* const transposed_;
};

// A block has at most kQueryBlock consecutive queries of a sentence. `first_query` is the position
// of the first one.
struct QueryBlock {
  std::int64_t sentence, first_query, queries;
};

// Divides the rows [first, first + count) of a batch into blocks.
std::vector<QueryBlock> query_blocks(const PackedRows& rows) {
  const std::span<const std::int32_t> offsets = rows.offsets_host;
  const std::int64_t end = rows.first + rows.count;
  std::vector<QueryBlock> blocks;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) {
    const std::int64_t last = std::min<std::int64_t>(offsets[b + 1], end);
    // Blocks begin at the same positions in every pass.
    for (std::int64_t row = std::max<std::int64_t>(offsets[b], rows.first); row < last;) {
      const std::int64_t position = row - offsets[b],
                         queries = std::min(kQueryBlock - position % kQueryBlock, last - row);
      blocks.push_back({static_cast<std::int64_t>(b), position, queries});
      row += queries;
    }
  }
  return blocks;
}

}  // namespace

// The keys of sentence b are the rows from key_offsets[b] up to, but not including, key_offsets[b +
// 1]. `causal` says that a query sees no key behind it.
void CpuBackend::attend_packed(Tensor queries, const PackedRows& rows, Tensor keys_values,
                               std::span<const std::int32_t> key_offsets,
                               const Attention& attention, bool causal, Tensor out) {
  const std::vector<QueryBlock> blocks = query_blocks(rows);
  const std::int64_t key_width = attention.key_width(), head_width = attention.head;
  pool_.run(std::ssize(blocks), [&](std::int64_t task, int thread) {
    const QueryBlock& block = blocks[static_cast<std::size_t>(task)];
    const auto sentence = static_cast<std::size_t>(block.sentence);
    const std::int64_t begin = key_offsets[sentence],
                       row = rows.offsets_host[sentence] + block.first_query - rows.first;
    // The scores of these keys are computed, of which a query may see only a part.
    const std::int64_t length =
        causal ? block.first_query + block.queries : key_offsets[sentence + 1] - begin;
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    BlockScores scores(scratch, block.queries, length, head_width);
    for (int head = 0; head < attention.heads; ++head) {
      const float* k = keys_values.as<float>() + begin * keys_values.stride +
                       head / attention.group() * head_width;
      if (head % attention.group() == 0) scores.take_keys(k, keys_values.stride);
      scores.compute(queries.as<float>() + row * queries.stride + head * head_width,
                     queries.stride);
      for (std::int64_t i = 0; i < block.queries; ++i) {
        const std::int64_t position = block.first_query + i;
        weigh(scores.row(i), length, first_seen(attention, position),
              causal ? position + 1 : length, attention, head, position, scratch.biases);
      }
      attention_loops().multiply(
          block.queries, head_width, length, scores.row(0), scores.stride, k + key_width,
          keys_values.stride, out.as<float>() + row * out.stride + head * head_width, out.stride);
    }
  });
}

void CpuBackend::attend_self(Queue&, Tensor qkv, const PackedRows& rows, const Attention& attention,
                             Tensor out) {
  const std::int64_t width = attention.width();
  attend_packed(qkv.column_range(0, width), rows,
                qkv.column_range(width, 2 * attention.key_width()), rows.offsets_host, attention,
                false, out);
}

void CpuBackend::attend_prompts(Queue&, Tensor queries, Tensor keys_values, const PackedRows& rows,
                                const Attention& attention, Tensor out) {
  // Earlier passes have rounded the rows before.
  round_as_cached(keys_values.row_range(rows.first, rows.count));
  attend_packed(queries, rows, keys_values, rows.offsets_host, attention, true, out);
}

void CpuBackend::attend_cross(Queue&, Tensor query, const PackedRows& rows, Tensor keys_values,
                              const Attention& attention, Tensor out) {
  if (rows.first == 0) round_as_cached(keys_values);
  attend_packed(query, rows, keys_values, rows.sources->offsets_host, attention, false, out);
}

void CpuBackend::attend_self(Queue&, Tensor qkv, const Step& step, std::size_t layer,
                             const Attention& attention, Tensor out) {
  const SearchState& state = step.state;
  const StepRows& rows = step.rows;
  const PagedCache& cache = step.caches.self[layer];
  const PagedCache* shared =
      step.caches.shared.empty() ? nullptr : step.caches.shared.data() + layer;
  const std::int64_t width = attention.width(), beams = rows.beams;
  pool_.run(rows.groups, [&](std::int64_t group, int thread) {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::int64_t slot = rows.slots[group];
    // The pages of a sentence that is done may already belong to another one.
    if (slot < 0 || state.done[slot]) return;
    const std::int64_t length = state.length[slot];
    for (std::int64_t beam = 0; beam < beams; ++beam) {
      const float* row = qkv.as<float>() + (group * beams + beam) * qkv.stride;
      store_row(row + width, cache, cached_row(cache, slot, length, beam));
    }
    const std::int64_t before = shared ? step.caches.source_lengths[slot] : 0,
                       first = first_seen(attention, before + length);
    for (std::int64_t beam = 0; beam < beams; ++beam) {
      scratch.rows.clear();
      for (std::int64_t t = first; t < before; ++t)
        scratch.rows.push_back(cached_row(*shared, slot, t, 0));
      const std::uint8_t* ancestor = state.ancestor + slot * state.longest * beams;
      for (std::int64_t t = std::max<std::int64_t>(0, first - before); t < length; ++t)
        scratch.rows.push_back(cached_row(cache, slot, t, ancestor[t * beams + beam]));
      scratch.rows.push_back(cached_row(cache, slot, length, beam));
      const std::int64_t row = group * beams + beam;
      attend_heads(qkv.as<float>() + row * qkv.stride, attention, cache.pages.dtype, scratch,
                   out.as<float>() + row * out.stride);
    }
  });
}

void CpuBackend::attend_cross(Queue&, Tensor query, const Step& step, std::size_t layer,
                              const Attention& attention, Tensor out) {
  const StepRows& rows = step.rows;
  const PagedCache& cache = step.caches.cross[layer];
  pool_.run(rows.groups, [&](std::int64_t group, int thread) {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const std::int64_t slot = rows.slots[group];
    if (slot < 0) return;
    const std::int64_t length = step.caches.source_lengths[slot];
    for (std::int64_t beam = 0; beam < rows.beams; ++beam) {
      scratch.rows.resize(static_cast<std::size_t>(length));
      for (std::int64_t t = 0; t < length; ++t)
        scratch.rows[static_cast<std::size_t>(t)] = cached_row(cache, slot, t, 0);
      const std::int64_t row = group * rows.beams + beam;
      attend_heads(query.as<float>() + row * query.stride, attention, cache.pages.dtype, scratch,
                   out.as<float>() + row * out.stride);
    }
  });
}

void CpuBackend::align(Queue&, Tensor query, const PackedRows& rows, Tensor keys_values,
                       const Attention& attention, const HeadSet& heads, std::int32_t* out) {
  if (rows.first == 0) round_as_cached(keys_values);
  const std::vector<QueryBlock> blocks = query_blocks(rows);
  pool_.run(std::ssize(blocks), [&](std::int64_t task, int thread) {
    const QueryBlock& block = blocks[static_cast<std::size_t>(task)];
    const auto sentence = static_cast<std::size_t>(block.sentence);
    const std::int32_t* offsets = rows.sources->offsets_host.data() + sentence;
    const std::int64_t begin = offsets[0], length = offsets[1] - begin,
                       row = rows.offsets_host[sentence] + block.first_query - rows.first;
    BlockScores scores(scratch_[static_cast<std::size_t>(thread)], block.queries, length,
                       attention.head);
    std::vector<float> sums(static_cast<std::size_t>(block.queries * length));
    for (int head = 0; head < attention.heads; ++head) {
      if (!heads.has(head)) continue;
      scores.take_keys(keys_values.as<float>() + begin * keys_values.stride + head * attention.head,
                       keys_values.stride);
      scores.compute(query.as<float>() + row * query.stride + head * attention.head, query.stride);
      for (std::int64_t i = 0; i < block.queries; ++i) {
        softmax_row(scores.row(i), attention.scale, 0, nullptr, length);
        std::transform(scores.row(i), scores.row(i) + length, sums.begin() + i * length,
                       sums.begin() + i * length, std::plus<>());
      }
    }
    for (std::int64_t i = 0; i < block.queries; ++i) {
      const auto first = sums.begin() + i * length;
      out[row + i] = static_cast<std::int32_t>(std::max_element(first, first + length) - first);
    }
  });
}

void CpuBackend::store_keys(Queue&, Tensor keys_values, const std::int32_t* token_slots,
                            const std::int32_t* positions, std::span<const PagedCache> layers) {
  const std::int64_t width = keys_values.columns / static_cast<std::int64_t>(layers.size());
  // Most of the time goes to the system, which clears pages that are touched for the first time.
  each_row(pool_, keys_values.rows, [&](std::int64_t token) {
    const float* row = keys_values.as<float>() + token * keys_values.stride;
    for (const PagedCache& layer : layers) {
      store_row(row, layer, cached_row(layer, token_slots[token], positions[token], 0));
      row += width;
    }
  });
}

}  // namespace xlate::cpu
