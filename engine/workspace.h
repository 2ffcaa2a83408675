// Rooms: the memory that a program's rows lie in, at addresses that never change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/arena.h"
#include "engine/program.h"

namespace xlate {

class Workspace {
 public:
  Workspace() = default;
  /// Allocates room for passes of at most `most_rows` rows. Throws Error where the backend has too
  /// little memory.
  Workspace(Backend& backend, const Program& program, std::int64_t most_rows)
      : arena_(backend, bytes(program, backend.compute_type(), most_rows)) {
    const DType type = backend.compute_type();
    for (const auto& [kind, columns] : program.tensors()) {
      ResidualRows rows(arena_.tensor(kind == TensorKind::kAccumulator ? DType::kFloat32 : type,
                                      most_rows, columns));
      if (keeps_low_bits(kind, type))
        rows.low_bits = arena_.tensor(DType::kInt8, most_rows, columns);
      rows_.push_back(rows);
    }
  }
  /// Uses memory that somebody else owns: a view for each room of a program, in their order.
  explicit Workspace(std::vector<ResidualRows> rows) : rows_(std::move(rows)) {}

  /// Bytes that so many rows of a program take.
  static std::size_t bytes(const Program& program, DType type, std::int64_t most_rows) {
    std::size_t sum = 0;
    for (const auto& [kind, columns] : program.tensors()) {
      sum += Arena::bytes_of(most_rows, columns,
                             kind == TensorKind::kAccumulator ? sizeof(float) : size_of(type));
      if (keeps_low_bits(kind, type)) sum += Arena::bytes_of(most_rows, columns, 1);
    }
    return sum;
  }

  /// The first `count` rows of a room.
  ResidualRows stream(TensorId id, std::int64_t count) const {
    const ResidualRows& rows = rows_[id.index];
    return {rows.rounded.row_range(0, count),
            rows.low_bits ? rows.low_bits.row_range(0, count) : Tensor{}};
  }
  /// The same, as products read them.
  Tensor rows(TensorId id, std::int64_t count) const {
    return rows_[id.index].rounded.row_range(0, count);
  }

 private:
  // What 16-bit types lose in the residual stream costs the most lines (docs/benchmarks.md).
  static bool keeps_low_bits(TensorKind kind, DType type) {
    return kind == TensorKind::kResidual && size_of(type) == 2;
  }

  Arena arena_;
  std::vector<ResidualRows> rows_;
};

}  // namespace xlate
