// The network's verbs but attention: embedding, layer norm, linear.
#include <algorithm>
#include <functional>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

constexpr std::int64_t kRowsPerTask = 32;
constexpr std::int64_t kWorthSharing = 64 * 1024;  // multiplications: some microseconds

// Splits `rows` into tasks of kRowsPerTask and calls body(row) for each row.
template <class Body>
void each_row(ThreadPool& pool, std::int64_t rows, const Body& body) {
  pool.run((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task, int) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) body(row);
  });
}

void embed_one(const Embedding& embedding, std::int32_t id, std::int32_t position, float* out) {
  assert(id >= 0 && id < embedding.table.rows && position >= 0 && position < embedding.positions.rows);
  embed_row(embedding.table.as<float>() + id * embedding.table.stride, embedding.scale,
            embedding.positions.as<float>() + position * embedding.positions.stride, embedding.table.columns, out);
}

}  // namespace

void CpuBackend::embed(Queue&, const Embedding& embedding, const std::int32_t* ids, const std::int32_t* positions, WideRows wide) {
  const Tensor out = wide.rounded;
  each_row(pool_, out.rows, [&](std::int64_t row) { embed_one(embedding, ids[row], positions[row], out.as<float>() + row * out.stride); });
}

void CpuBackend::embed_step(Queue&, const Embedding& embedding, const SearchState& state, const StepRows& rows, WideRows wide) {
  const Tensor out = wide.rounded;
  each_row(pool_, out.rows, [&](std::int64_t row) {
    const std::int32_t slot = rows.slots[row / rows.beams];
    if (slot < 0 || state.done[slot]) return;
    embed_one(embedding, state.token[slot * rows.beams + row % rows.beams], state.length[slot], out.as<float>() + row * out.stride);
  });
}

void CpuBackend::layer_norm(Queue&, Tensor x, WideRows wide_residual, const Norm& norm, WideRows wide_out) {
  const Tensor residual = wide_residual.rounded, out = wide_out.rounded;  // float32 has no rest
  each_row(pool_, x.rows, [&](std::int64_t row) {
    const float* in = x.as<float>() + row * x.stride;
    float* y = out.as<float>() + row * out.stride;
    if (residual) {
      const float* added = residual.as<float>() + row * residual.stride;
      std::transform(in, in + x.columns, added, y, std::plus<>());
      in = y;
    }
    norm_row(in, norm.gain.as<float>(), norm.bias.as<float>(), norm.epsilon, x.columns, y);
  });
}

// Few rows: columns are split, so that each weight is read by one thread only. Many rows: the longer side is, since a thread's share
// of the shorter one is packed by each of them.
CpuBackend::Tile CpuBackend::tile_of(std::int64_t rows, std::int64_t columns, std::int64_t depth) const {
  const auto parts = [](std::int64_t extent, std::int64_t pieces, std::int64_t multiple) {
    const std::int64_t size = (extent + pieces - 1) / pieces;
    return (size + multiple - 1) / multiple * multiple;
  };
  const std::int64_t threads = pool_.threads();
  Tile tile{rows, columns, 1, 1};
  if (threads > 1 && rows * columns * depth >= kWorthSharing) {
    if (rows > columns && rows > kFewRows) tile.rows = parts(rows, threads, 16);
    else tile.columns = parts(columns, threads, 16);
  }
  tile.row_tiles = (rows + tile.rows - 1) / tile.rows;
  tile.column_tiles = (columns + tile.columns - 1) / tile.columns;
  return tile;
}

void CpuBackend::linear(Queue&, Tensor x, const Linear& layer, Activation activation, Tensor residual, Tensor out) {
  assert(x.columns == layer.weight.columns && out.columns == layer.weight.rows && out.rows == x.rows);
  if (x.rows == 0) return;
  const Tile tile = tile_of(out.rows, out.columns, x.columns);
  const float* bias = layer.bias ? layer.bias.as<float>() : nullptr;
  pool_.run(tile.row_tiles * tile.column_tiles, [&](std::int64_t task, int thread) {
    const std::int64_t row = task / tile.column_tiles * tile.rows, column = task % tile.column_tiles * tile.columns;
    const std::int64_t m = std::min(tile.rows, out.rows - row), n = std::min(tile.columns, out.columns - column);
    const float* input = x.as<float>() + row * x.stride;
    const float* weight = layer.weight.as<float>() + column * layer.weight.stride;
    float* y = out.as<float>() + row * out.stride + column;
    // The residual may be the output itself, so the product goes to its place only where it is not.
    const bool in_place = residual && residual.data == out.data;
    float* product = y;
    std::int64_t stride = out.stride;
    if (in_place) {
      product = scratch_[static_cast<std::size_t>(thread)].numbers_of(m * n);
      stride = n;
    }
    if (m <= kFewRows) product_few_rows(m, n, x.columns, input, x.stride, weight, layer.weight.stride, product, stride);
    else blas_.product(m, n, x.columns, input, x.stride, weight, layer.weight.stride, product, stride);
    for (std::int64_t i = 0; i < m; ++i) {
      finish_row(product + i * stride, bias ? bias + column : nullptr, activation,
                 residual ? residual.as<float>() + (row + i) * residual.stride + column : nullptr, n);
      if (in_place) std::copy_n(product + i * stride, n, y + i * out.stride);
    }
  });
}

}  // namespace xlate::cpu
