// How an operation of a program becomes a call of the Backend's verb of the same name.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/workspace.h"

namespace xlate {

inline std::int64_t rows_of(const PackedRows& batch) { return batch.count; }
inline std::int64_t rows_of(const Step& batch) { return batch.rows.rows(); }

/// The call for each kind of operation; Pass is PackedRows or Step.
template <class Batch>
struct CallBackend {
  Backend& backend;
  Queue& queue;
  const Workspace& workspace;
  const Batch& batch;
  std::int64_t count = rows_of(batch);

  void operator()(const Embed& op) const {
    backend.embed(queue, op.embedding, batch, workspace.stream(op.out, count));
  }
  void operator()(const ApplyLinear& op) const {
    backend.linear(queue, workspace.rows(op.x, count), op.layer, op.activation,
                   workspace.rows(op.out, count));
  }
  void operator()(const AddNorm& op) const {
    backend.add_norm(queue, workspace.stream(op.stream, count),
                     op.y == op.stream ? Tensor{} : workspace.rows(op.y, count), op.after);
  }
  void operator()(const AttendSelf& op) const {
    const Tensor qkv = workspace.rows(op.queries_keys_values, count),
                 out = workspace.rows(op.out, count);
    if constexpr (std::is_same_v<Batch, Step>)
      backend.attend_self(queue, qkv, batch, op.layer, op.heads, out);
    else
      backend.attend_self(queue, qkv, batch, op.heads, out);
  }
  void operator()(const AttendCross& op) const {
    if constexpr (std::is_same_v<Batch, Step>)
      backend.attend_cross(queue, workspace.rows(op.queries, count), batch, op.layer, op.heads,
                           workspace.rows(op.out, count));
    else
      fail("a program of packed rows attends to a source: only a step has one");
  }
};

}  // namespace xlate
