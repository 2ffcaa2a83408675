// How an operation of a program becomes a call of the Backend's verb of the same name.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/backend.h"
#include "engine/error.h"
#include "engine/rooms.h"

namespace xlate {

inline std::int64_t rows_of(const PackedRows& pass) { return pass.count; }
inline std::int64_t rows_of(const Step& pass) { return pass.rows.rows(); }

/// The call for each kind of operation; Pass is PackedRows or Step.
template <class Pass>
struct CallVerb {
  Backend& backend;
  Queue& queue;
  const Rooms& rooms;
  const Pass& pass;
  std::int64_t count = rows_of(pass);

  void operator()(const Embed& op) const {
    backend.embed(queue, op.embedding, pass, rooms.stream(op.out, count));
  }
  void operator()(const ApplyLinear& op) const {
    backend.linear(queue, rooms.rows(op.x, count), op.layer, op.activation,
                   rooms.rows(op.out, count));
  }
  void operator()(const AddNorm& op) const {
    backend.add_norm(queue, rooms.stream(op.stream, count),
                     op.y == op.stream ? Tensor{} : rooms.rows(op.y, count), op.after);
  }
  void operator()(const AttendSelf& op) const {
    const Tensor qkv = rooms.rows(op.queries_keys_values, count), out = rooms.rows(op.out, count);
    if constexpr (std::is_same_v<Pass, Step>)
      backend.attend_self(queue, qkv, pass, op.layer, op.heads, out);
    else
      backend.attend_self(queue, qkv, pass, op.heads, out);
  }
  void operator()(const AttendSource& op) const {
    if constexpr (std::is_same_v<Pass, Step>)
      backend.attend_source(queue, rooms.rows(op.queries, count), pass, op.layer, op.heads,
                            rooms.rows(op.out, count));
    else
      fail("a program of packed rows attends to a source: only a step has one");
  }
};

}  // namespace xlate
