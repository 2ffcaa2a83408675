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
enum class RoomKind : std::uint8_t {
  kRows,    // the type that the backend computes in
  kStream,  // the residual stream: the same, and in 16-bit types what rounding takes off each value
            // besides (WideRows)
  kSums,    // float32: a product on its way into the add_norm behind it, which alone reads it: a
            // backend may do both at once and never write it
};

/// Rows of some width that operations read and write. Their memory is in a Rooms (engine/rooms.h).
struct Room {
  std::size_t index = 0;
  bool operator==(const Room&) const = default;
};

// The operations. What each one computes is said at the Backend's verb of the same name.
struct Embed {
  Embedding embedding;
  Room out;
};
struct ApplyLinear {
  Room x;
  Linear layer;
  Activation activation;
  Room out;
};
struct AddNorm {
  Room stream;
  Room y;  // what is added to the stream first, unless it is the stream itself
  Norm after;
};
/// Self-attention inside each packed sentence, or of a step over the tokens before, whose keys are
/// in the cache of `layer`.
struct AttendSelf {
  Room queries_keys_values;
  std::size_t layer;
  int heads;
  Room out;
};
struct AttendSource {
  Room queries;
  std::size_t layer;
  int heads;
  Room out;
};
using Operation = std::variant<Embed, ApplyLinear, AddNorm, AttendSelf, AttendSource>;

class Program {
 public:
  struct RoomShape {
    RoomKind kind;
    std::int64_t columns;
  };

  Room room(RoomKind kind, std::int64_t columns) {
    rooms_.push_back({kind, columns});
    return {rooms_.size() - 1};
  }
  void add(const Operation& operation) { operations_.push_back(operation); }
  /// The room with what the pass comes to.
  void set_out(Room out) { out_ = out; }

  const std::vector<RoomShape>& rooms() const { return rooms_; }
  const std::vector<Operation>& operations() const { return operations_; }
  Room out() const { return out_; }

 private:
  std::vector<RoomShape> rooms_;
  std::vector<Operation> operations_;
  Room out_;
};

}  // namespace xlate
