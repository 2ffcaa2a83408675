// Runs a product and the norm that follows it as a network does: as two neighbouring operations of
// a program, which a backend may compute with one kernel.
#pragma once

#include "engine/workspace.h"

namespace xlate::test {

/// Computes stream = after(stream + x·Wᵀ + b) for x [N, in] and stream [N, D]. `sums` is a float32
/// workspace of [N, D], whose contents are undefined afterwards.
inline void run_linear_norm(Backend& backend, Queue& queue, const Tensor& x, const Linear& layer,
                            const Tensor& sums, const ResidualRows& stream, const Norm& after) {
  Program program;
  const TensorId from = program.tensor(TensorKind::kComputeType, x.columns),
                 between = program.tensor(TensorKind::kAccumulator, sums.columns),
                 to = program.tensor(TensorKind::kResidual, sums.columns);
  program.add(ApplyLinear{from, layer, Activation::kNone, between});
  program.add(AddNorm{to, between, after});
  program.set_out(to);
  backend.run(queue, program, Workspace({x, sums, stream}), PackedRows{.count = x.rows});
}

}  // namespace xlate::test
