// CallBackend: turns an operation of a program into a call of the Backend function of this
// operation.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/workspace.h"

namespace xlate {

/// Returns the number of rows of a batch: N packed rows, or R = G·K rows of a decoding step.
inline std::int64_t rows_of(const PackedRows& batch) { return batch.count; }
inline std::int64_t rows_of(const Step& batch) { return batch.rows.rows(); }

/// A visitor for Operation: calls the Backend function of the operation with the batch and with
/// views of the operation's tensors in the workspace. Batch is PackedRows or Step. Throws Error for
/// an AttendCross over packed rows without sources.
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
  void operator()(const ApplyGate& op) const {
    backend.gate(queue, workspace.rows(op.x, count), op.activation, workspace.rows(op.out, count));
  }
  void operator()(const AddNorm& op) const {
    backend.add_norm(queue, workspace.stream(op.stream, count),
                     op.y == op.stream
                         ? Addend()
                         : Addend(workspace.rows(op.y, count), op.inside, op.residual_scale),
                     op.after, op.before, op.before ? workspace.rows(op.normed, count) : Tensor{});
  }
  void operator()(const TransformHeads& op) const {
    backend.transform_heads(queue, workspace.rows(op.queries_keys_values, count), batch,
                            op.transform, op.attention);
  }
  void operator()(const Keep& op) const {
    if constexpr (std::is_same_v<Batch, PackedRows>) {
      const std::int64_t columns = 2 * op.attention.key_width();
      backend.copy(
          queue,
          workspace.rows(op.queries_keys_values, count).column_range(op.attention.width(), columns),
          kept(op.keys_values, op.layer, op.attention).row_range(batch.first, count));
    } else {
      fail("a decoding step keeps keys for its prompt: only packed rows have any");
    }
  }
  void operator()(const AttendSelf& op) const {
    const Tensor qkv = workspace.rows(op.queries_keys_values, count),
                 out = workspace.rows(op.out, count);
    if constexpr (std::is_same_v<Batch, Step>)
      backend.attend_self(queue, qkv, batch, op.layer, op.attention, out);
    else
      backend.attend_self(queue, qkv, batch, op.attention, out);
  }
  void operator()(const AttendPrompts& op) const {
    if constexpr (std::is_same_v<Batch, PackedRows>)
      backend.attend_prompts(
          queue,
          workspace.rows(op.queries_keys_values, count).column_range(0, op.attention.width()),
          kept(op.keys_values, op.layer, op.attention), batch, op.attention,
          workspace.rows(op.out, count));
    else
      fail("a decoding step attends to packed prompts: only packed rows have any");
  }
  void operator()(const AttendCross& op) const {
    if constexpr (std::is_same_v<Batch, Step>)
      backend.attend_cross(queue, workspace.rows(op.queries, count), batch, op.layer, op.attention,
                           workspace.rows(op.out, count));
    else
      attend_packed_sources(op);
  }

 private:
  void attend_packed_sources(const AttendCross& op) const {
    if (!batch.sources) fail("packed rows attend to a source, and have none");
    const std::int64_t columns = 2 * op.attention.key_width();
    backend.attend_cross(queue, workspace.rows(op.queries, count), batch,
                         batch.sources->keys_values.column_range(
                             static_cast<std::int64_t>(op.layer) * columns, columns),
                         op.attention, workspace.rows(op.out, count));
  }
  // Returns the keys and values of a layer, of the batch's rows up to the last one of the pass.
  Tensor kept(TensorId id, std::size_t layer, const Attention& attention) const {
    const std::int64_t columns = 2 * attention.key_width();
    return workspace.rows(id, batch.first + count)
        .column_range(static_cast<std::int64_t>(layer) * columns, columns);
  }
};

}  // namespace xlate
