// Lays out the shared memory of the solo kernel's blocks. It is called when the operations of a
// step are known (compiler.cpp). Nothing here needs a device.
#pragma once

#include <optional>
#include <vector>

#include "engine/cuda/solo/solo.h"

namespace xlate::cuda {

/// Holds the arguments of a step with its list of operations, which `args.ops` does not point to
/// yet.
struct SoloPlan {
  SoloArgs args{};
  std::vector<SoloOp> ops;
};

/// Gives memory to the rows of all tensors, those that are in use at the same time in different
/// places. Before the call, SoloRows::at of every tensor is a number that no other tensor has.
/// Afterwards it is an offset into the memory of all rows, whose size in bytes is returned. Returns
/// nothing if an operation writes rows while they are in use, or reads rows that nothing has
/// written.
std::optional<int> share_rows(SoloPlan&);

/// Divides the shared memory of the blocks, of which so many compute the vocabulary. `row_bytes` is
/// what share_rows has returned. Returns false if the memory is too small.
bool lay_out(SoloPlan&, int row_bytes, int vocabulary_blocks, int shared_bytes, int longest_source);

}  // namespace xlate::cuda
