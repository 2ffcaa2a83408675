// Workspace: the memory of a program's tensors, at addresses that never change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/arena.h"
#include "engine/program.h"

namespace xlate {

/// Gives views of a program's tensors by their TensorId.
class Workspace {
 public:
  Workspace() = default;
  /// Allocates the tensors of the program for batches of at most `batch_rows` rows, over which it
  /// is run in passes of at most `most_rows`. Throws Error if the backend has too little memory.
  Workspace(Backend& backend, const Program& program, std::int64_t most_rows,
            std::int64_t batch_rows)
      : arena_(backend, bytes(program, backend.compute_type(), most_rows, batch_rows)) {
    const DType type = backend.compute_type();
    for (const auto& [kind, columns] : program.tensors()) {
      ResidualRows rows(arena_.tensor(kind == TensorKind::kAccumulator ? DType::kFloat32 : type,
                                      kind == TensorKind::kBatch ? batch_rows : most_rows,
                                      columns));
      if (keeps_low_bits(kind, type))
        rows.low_bits = arena_.tensor(DType::kInt8, most_rows, columns);
      rows_.push_back(rows);
    }
  }
  /// Uses memory that somebody else owns. `rows` holds a view for each tensor of a program, in the
  /// order of their ids.
  explicit Workspace(std::vector<ResidualRows> rows) : rows_(std::move(rows)) {}

  /// Returns a view of the rows from `first` on, for a part of a batch. It must not outlive this.
  Workspace from_row(std::int64_t first) const {
    std::vector<ResidualRows> rows;
    for (const ResidualRows& all : rows_) {
      const std::int64_t count = all.rounded.rows - first;
      rows.push_back({all.rounded.row_range(first, count),
                      all.low_bits ? all.low_bits.row_range(first, count) : Tensor{}});
    }
    return Workspace(std::move(rows));
  }

  /// Returns the bytes that the program's tensors take in such a workspace, where `type` is the
  /// compute type.
  static std::size_t bytes(const Program& program, DType type, std::int64_t most_rows,
                           std::int64_t batch_rows) {
    std::size_t sum = 0;
    for (const auto& [kind, columns] : program.tensors()) {
      sum += Arena::bytes_of(kind == TensorKind::kBatch ? batch_rows : most_rows, columns,
                             kind == TensorKind::kAccumulator ? sizeof(float) : size_of(type));
      if (keeps_low_bits(kind, type)) sum += Arena::bytes_of(most_rows, columns, 1);
    }
    return sum;
  }

  /// Returns the first `count` rows of a tensor, [count, columns], with their low bits where these
  /// are kept.
  ResidualRows stream(TensorId id, std::int64_t count) const {
    const ResidualRows& rows = rows_[id.index];
    return {rows.rounded.row_range(0, count),
            rows.low_bits ? rows.low_bits.row_range(0, count) : Tensor{}};
  }
  /// Returns the first `count` rows of a tensor, [count, columns], without low bits: those that
  /// products read.
  Tensor rows(TensorId id, std::int64_t count) const {
    return rows_[id.index].rounded.row_range(0, count);
  }

 private:
  // Rounding the residual stream to 16 bits changes more lines of a translation than rounding
  // anything else does (docs/benchmarks-history.md, "What float16 loses"). So low bits are kept for
  // it alone.
  static bool keeps_low_bits(TensorKind kind, DType type) {
    return kind == TensorKind::kResidual && size_of(type) == 2;
  }

  Arena arena_;
  std::vector<ResidualRows> rows_;
};

}  // namespace xlate
