// Runs a product and the norm that follows it as a network does: as two neighbouring operations of
// a program, which a backend may compute with one kernel.
#pragma once

#include "engine/workspace.h"

namespace xlate::test {

/// Computes stream = after(stream + x·Wᵀ + b) and then normed = before(stream) for x [N, in],
/// stream and normed [N, D]. A norm that is absent leaves its rows as they are. `sums` is a float32
/// workspace of [N, D], whose contents are undefined afterwards.
inline void run_linear_norm(Backend& backend, Queue& queue, const Tensor& x, const Linear& layer,
                            const Tensor& sums, const ResidualRows& stream, const Norm& after,
                            const Norm& before = {}, const Tensor& normed = {}) {
  Program program;
  const TensorId from = program.tensor(TensorKind::kComputeType, x.columns),
                 between = program.tensor(TensorKind::kAccumulator, sums.columns),
                 to = program.tensor(TensorKind::kResidual, sums.columns),
                 normed_to = program.tensor(TensorKind::kComputeType, sums.columns);
  program.add(ApplyLinear{from, layer, Activation::kNone, between});
  program.add(AddNorm{to, between, after, before, normed_to});
  program.set_out(before ? normed_to : to);
  backend.run(queue, program, Workspace({x, sums, stream, normed}), PackedRows{.count = x.rows});
}

}  // namespace xlate::test
