// Program: one pass of a network over rows, as a list of operations. A program is written once,
// when a run begins, and is run thousands of times. Because a backend gets the whole list, it can
// prepare the products, compute neighbouring operations by one kernel, or compile the program into
// a single kernel. A program stays a plain list, without branches, loops or shape inference.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "engine/activation.h"
#include "engine/layers.h"

namespace xlate {

/// How the values of a tensor are stored.
enum class TensorKind : std::uint8_t {
  // The values are of the backend's compute type.
  kComputeType,
  // The tensor is the residual stream. Its values are of the compute type, and if this type has 16
  // bits, their low bits are kept as well (ResidualRows).
  kResidual,
  // The values are accumulators in float32: the outputs of a product, which only the add_norm that
  // follows it reads. A backend may compute both by one kernel and never write the accumulators.
  kAccumulator,
  // The values are of the compute type. The tensor has a row for each row of a batch, even if the
  // program is run over the batch in several passes, of which each writes its own rows.
  kBatch,
};

/// Names a tensor of a program, whose rows operations read and write. The tensor's memory is in a
/// Workspace (engine/workspace.h).
struct TensorId {
  std::size_t index = 0;
  bool operator==(const TensorId&) const = default;
};

// The operations follow. The comment on the Backend function of an operation (engine/backend.h)
// says what it computes, with shapes and formulas. A program is run over N rows or over the R rows
// of a decoding step.

/// Backend::embed: starts the residual stream with the embeddings of the batch's tokens.
struct Embed {
  Embedding embedding;
  TensorId out;
};
/// Backend::linear: out = activation(x·Wᵀ + b).
struct ApplyLinear {
  TensorId x;
  Linear layer;
  Activation activation;
  TensorId out;
};
/// Backend::gate: multiplies the activated first half of each row of x with its second half.
struct ApplyGate {
  TensorId x;
  Activation activation;
  TensorId out;
};
/// Backend::add_norm: stream = after(stream + residual_scale · inside(y)), then normed =
/// before(stream). Where `y` is `stream`, nothing is added before the norms. Each norm may be
/// absent; without `before`, `normed` has no meaning.
struct AddNorm {
  TensorId stream;
  TensorId y;
  Norm after;
  Norm before{};
  TensorId normed{};
  Norm inside{};
  float residual_scale = 1;
};
/// Backend::transform_heads: norms and rotates queries and keys in place.
struct TransformHeads {
  TensorId queries_keys_values;
  HeadTransform transform;
  Attention attention;
};
/// Backend::copy: copies the keys and values of a layer, to which `attention` attends, to the rows
/// of the pass in `keys_values`, which has layers·2·A' columns for each row of the batch, where A'
/// is Attention::key_width(). They are the columns from layer·2·A' on. A model with shared caches
/// installs them (PagedCaches::shared).
struct Keep {
  TensorId queries_keys_values;
  std::size_t layer;
  Attention attention;
  TensorId keys_values;
};
/// Backend::attend_self: self-attention. Over packed rows, tokens attend to their own sentence, and
/// `layer` is not used. In a decoding step, tokens attend to those before them and to themselves,
/// with keys in the shared cache of `layer`, if there is one, and in its self cache.
struct AttendSelf {
  TensorId queries_keys_values;
  std::size_t layer;
  Attention attention;
  TensorId out;
};
/// Backend::attend_prompts: tokens of prompts attend to themselves and to those before them, with
/// the keys and values of `layer` that Keep has copied to `keys_values`. It exists in programs of
/// packed rows alone.
struct AttendPrompts {
  TensorId queries_keys_values;
  TensorId keys_values;
  std::size_t layer;
  Attention attention;
  TensorId out;
};
/// Backend::attend_cross: cross-attention to the source. The keys are those of `layer` in the cross
/// cache, or over packed rows in PackedRows::sources.
struct AttendCross {
  TensorId queries;
  std::size_t layer;
  Attention attention;
  TensorId out;
};
/// One entry of a program.
using Operation = std::variant<Embed, ApplyLinear, ApplyGate, AddNorm, TransformHeads, Keep,
                               AttendSelf, AttendPrompts, AttendCross>;

/// A list of operations and the tensors that they read and write.
class Program {
 public:
  /// The number of a tensor's rows is not known before the program is run: it is the number of the
  /// batch's rows.
  struct TensorShape {
    TensorKind kind;
    std::int64_t columns;
  };

  /// Adds a tensor and returns its name.
  TensorId tensor(TensorKind kind, std::int64_t columns) {
    tensors_.push_back({kind, columns});
    return {tensors_.size() - 1};
  }
  /// Adds an operation behind those that are there.
  void add(const Operation& operation) { operations_.push_back(operation); }
  /// Says which tensor holds the result after the last operation.
  void set_out(TensorId out) { out_ = out; }

  /// The tensors, at the indices that their TensorId has.
  const std::vector<TensorShape>& tensors() const { return tensors_; }
  /// The operations, in the order in which they are computed.
  const std::vector<Operation>& operations() const { return operations_; }
  /// The tensor with the result.
  TensorId out() const { return out_; }

 private:
  std::vector<TensorShape> tensors_;
  std::vector<Operation> operations_;
  TensorId out_;
};

}  // namespace xlate
