// A product with the norm behind it as a network asks for them: as neighbours in a program.
#pragma once

#include "engine/workspace.h"

namespace xlate::test {

/// stream = after(stream + x·Wᵀ + b); sums [N, D] is float32 and undefined afterwards.
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
