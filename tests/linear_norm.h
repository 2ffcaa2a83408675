// A product with the norm behind it as a network asks for them: as neighbours in a program.
#pragma once

#include "engine/rooms.h"

namespace xlate::test {

/// stream = after(stream + x·Wᵀ + b); sums [N, D] is float32 and undefined afterwards.
inline void run_linear_norm(Backend& backend, Queue& queue, const Tensor& x, const Linear& layer,
                            const Tensor& sums, const WideRows& stream, const Norm& after) {
  Program program;
  const Room from = program.room(RoomKind::kRows, x.columns),
             between = program.room(RoomKind::kSums, sums.columns),
             to = program.room(RoomKind::kStream, sums.columns);
  program.add(ApplyLinear{from, layer, Activation::kNone, between});
  program.add(AddNorm{to, between, after});
  program.set_out(to);
  backend.run(queue, program, Rooms({x, sums, stream}), PackedRows{.count = x.rows});
}

}  // namespace xlate::test
