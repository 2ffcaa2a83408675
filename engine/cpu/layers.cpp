// Computes the operations of a network except attention and products: embeddings, gates, the
// residual stream with its norms, and the rounding of keys and values.
#include <algorithm>
#include <functional>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

void embed_one(const Embedding& embedding, std::int32_t id, std::int32_t position, float* out) {
  const Tensor& positions = embedding.positions;
  assert(id >= 0 && id < embedding.table.rows);
  assert(!positions || (position >= 0 && position < positions.rows));
  embed_row(embedding.table.as<float>() + id * embedding.table.stride, embedding.scale,
            positions ? positions.as<float>() + position * positions.stride : nullptr,
            embedding.table.columns, out);
}

void norm_one(const Norm& norm, const float* x, std::int64_t width, float* out) {
  norm_row(x, norm.kind, norm.gain.as<float>(), norm.shift ? norm.shift.as<float>() : nullptr,
           norm.epsilon, width, out);
}

// Returns the position of the last token of a slot's hypotheses.
std::int32_t position_of(const Step& step, std::int32_t slot) {
  const std::int32_t* before = step.caches.tokens_before();
  return step.state.length[slot] + (before ? before[slot] : 0);
}

// Transforms the heads of queries and keys of one row, which begin at x. All of them are rotated by
// the same angles, which scratch memory holds.
void transform_one(const HeadTransform& transform, const Attention& attention,
                   std::int32_t position, float* x, Scratch& scratch) {
  const std::int64_t keys = attention.key_width() / attention.head,
                     pairs = transform.rates ? transform.rates.columns : 0;
  float* sines = scratch.numbers_of(2 * pairs);
  if (transform.rates)
    rotation_of(transform.rates.as<float>(), static_cast<float>(position), pairs, sines,
                sines + pairs);
  for (std::int64_t head = 0; head < attention.heads + keys; ++head, x += attention.head) {
    const Norm& norm = head < attention.heads ? transform.query_norm : transform.key_norm;
    if (norm) norm_one(norm, x, attention.head, x);
    if (transform.rates) rotate_row(x, sines, sines + pairs, pairs);
  }
}

}  // namespace

void CpuBackend::embed(Queue&, const Embedding& embedding, const PackedRows& rows,
                       ResidualRows stream) {
  const Tensor out = stream.rounded;
  each_row(pool_, out.rows, [&](std::int64_t row) {
    embed_one(embedding, rows.ids[row], rows.positions[row], out.as<float>() + row * out.stride);
  });
}

void CpuBackend::embed(Queue&, const Embedding& embedding, const Step& step, ResidualRows stream) {
  const Tensor out = stream.rounded;
  const SearchState& state = step.state;
  const StepRows& rows = step.rows;
  each_row(pool_, out.rows, [&](std::int64_t row) {
    const std::int32_t slot = rows.slots[row / rows.beams];
    if (slot < 0 || state.done[slot]) return;
    embed_one(embedding, state.token[slot * rows.beams + row % rows.beams], position_of(step, slot),
              out.as<float>() + row * out.stride);
  });
}

void CpuBackend::add_norm(Queue&, ResidualRows stream, const Addend& y, const Norm& after,
                          const Norm& before, Tensor normed) {
  // In float32 the residual stream has no low bits.
  const Tensor x = stream.rounded;
  each_row(pool_, x.rows, [&](std::int64_t row) {
    float* sum = x.as<float>() + row * x.stride;
    if (y) {
      float* added = y.rows.as<float>() + row * y.rows.stride;
      if (y.inside) norm_one(y.inside, added, x.columns, added);
      if (y.scale == 1) {
        std::transform(added, added + x.columns, sum, sum, std::plus<>());
      } else {
        std::transform(added, added + x.columns, sum, sum,
                       [&](float a, float b) { return b + y.scale * a; });
      }
    }
    if (after) norm_one(after, sum, x.columns, sum);
    if (before) norm_one(before, sum, x.columns, normed.as<float>() + row * normed.stride);
  });
}

void CpuBackend::transform_heads(Queue&, Tensor qkv, const PackedRows& rows,
                                 const HeadTransform& transform, const Attention& attention) {
  each_row(pool_, qkv.rows, [&](std::int64_t row, int thread) {
    transform_one(transform, attention, rows.positions[row], qkv.as<float>() + row * qkv.stride,
                  scratch_[static_cast<std::size_t>(thread)]);
  });
}

void CpuBackend::transform_heads(Queue&, Tensor qkv, const Step& step,
                                 const HeadTransform& transform, const Attention& attention) {
  each_row(pool_, qkv.rows, [&](std::int64_t row, int thread) {
    const std::int32_t slot = step.rows.slots[row / step.rows.beams];
    if (slot < 0 || step.state.done[slot]) return;
    transform_one(transform, attention, position_of(step, slot), qkv.as<float>() + row * qkv.stride,
                  scratch_[static_cast<std::size_t>(thread)]);
  });
}

void CpuBackend::copy(Queue&, Tensor from, Tensor to) {
  each_row(pool_, from.rows, [&](std::int64_t row) {
    std::copy_n(from.as<float>() + row * from.stride, from.columns,
                to.as<float>() + row * to.stride);
  });
}

void CpuBackend::round_as_cached(Tensor keys_values) {
  if (cache_type() != DType::kBFloat16) return;
  each_row(pool_, keys_values.rows, [&](std::int64_t row) {
    round_in_place(keys_values.as<float>() + row * keys_values.stride, keys_values.columns);
  });
}

void CpuBackend::gate(Queue&, Tensor x, Activation activation, Tensor out) {
  each_row(pool_, out.rows, [&](std::int64_t row) {
    gate_row(x.as<float>() + row * x.stride, activation, out.columns,
             out.as<float>() + row * out.stride);
  });
}

}  // namespace xlate::cpu
