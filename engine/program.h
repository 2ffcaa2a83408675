// Program: one pass of a network over rows, as a list of operations. It is written once, when a run
// begins, and run thousands of times; a backend that is handed the whole list can prepare its
// products, do neighbours at once, or compile all of it into one kernel. It stays a plain list: no
// branch, no loop, no inference of shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "engine/activation.h"
#include "engine/layers.h"

namespace xlate {

/// What the rows of a room are kept as.
enum class TensorKind : std::uint8_t {
  kComputeType,  // the type that the backend computes in
  kResidual,     // the residual stream: the same, and in 16-bit types what rounding takes off each
                 // value besides (ResidualRows)
  kAccumulator,  // float32: a product on its way into the add_norm behind it, which alone reads it:
                 // a backend may do both at once and never write it
};

/// Rows of some width that operations read and write. Their memory is in a Rooms
/// (engine/workspace.h).
struct TensorId {
  std::size_t index = 0;
  bool operator==(const TensorId&) const = default;
};

// The operations. What each one computes is said at the Backend's verb of the same name.
struct Embed {
  Embedding embedding;
  TensorId out;
};
struct ApplyLinear {
  TensorId x;
  Linear layer;
  Activation activation;
  TensorId out;
};
struct AddNorm {
  TensorId stream;
  TensorId y;  // what is added to the stream first, unless it is the stream itself
  Norm after;
};
/// Self-attention inside each packed sentence, or of a step over the tokens before, whose keys are
/// in the cache of `layer`.
struct AttendSelf {
  TensorId queries_keys_values;
  std::size_t layer;
  int heads;
  TensorId out;
};
struct AttendCross {
  TensorId queries;
  std::size_t layer;
  int heads;
  TensorId out;
};
using Operation = std::variant<Embed, ApplyLinear, AddNorm, AttendSelf, AttendCross>;

class Program {
 public:
  struct TensorShape {
    TensorKind kind;
    std::int64_t columns;
  };

  TensorId tensor(TensorKind kind, std::int64_t columns) {
    tensors_.push_back({kind, columns});
    return {tensors_.size() - 1};
  }
  void add(const Operation& operation) { operations_.push_back(operation); }
  /// The room with what the pass comes to.
  void set_out(TensorId out) { out_ = out; }

  const std::vector<TensorShape>& tensors() const { return tensors_; }
  const std::vector<Operation>& operations() const { return operations_; }
  TensorId out() const { return out_; }

 private:
  std::vector<TensorShape> tensors_;
  std::vector<Operation> operations_;
  TensorId out_;
};

}  // namespace xlate
