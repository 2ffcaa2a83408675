// Lists the operations of a Transformer: those of the encoder, and those of a decoding step.
#include "models/programs.h"

#include <utility>

namespace xlate {
namespace {

// Collects the operations of one stack. All layers share the same tensors of the workspace, and
// both stacks have these operations in common. A product reads `normed`, which is the residual
// stream itself or what the norm before the sublayer has made of it. That norm is computed together
// with the addition that ends the sublayer before. Therefore begin() of a sublayer adds what the
// sublayer before it has computed, and end() adds the last one.
class StackProgram {
 public:
  explicit StackProgram(const Stack& described)
      : stack(described),
        x(program.tensor(TensorKind::kResidual, stack.width)),
        accumulators(program.tensor(TensorKind::kAccumulator, stack.width)),
        queries_keys_values(program.tensor(TensorKind::kComputeType, 3 * stack.self.width())),
        context(program.tensor(TensorKind::kComputeType, stack.self.width())),
        inner(program.tensor(TensorKind::kComputeType, stack.inner)) {
    if (stack.gated) gate = program.tensor(TensorKind::kComputeType, 2 * stack.inner);
    program.add(Embed{stack.embedding, x});
    after = stack.embedding_norm;
  }

  void linear(TensorId from, const Linear& layer, TensorId to,
              Activation activation = Activation::kNone) {
    program.add(ApplyLinear{from, layer, activation, to});
  }
  void attend_self(const SelfAttention& attention, std::size_t layer) {
    begin(attention.norms.before);
    linear(normed, attention.queries_keys_values, queries_keys_values);
    program.add(AttendSelf{queries_keys_values, layer, stack.self, context});
    add(context, attention.out, attention.norms.after);
  }
  void attend_cross(const CrossAttention& attention, std::size_t layer, TensorId query) {
    begin(attention.norms.before);
    linear(normed, attention.query, query);
    program.add(AttendCross{query, layer, stack.cross, context});
    add(context, attention.out, attention.norms.after);
  }
  void feed_forward(const FeedForward& layer) {
    begin(layer.norms.before);
    if (stack.gated) {
      linear(normed, layer.up, gate);
      program.add(ApplyGate{gate, stack.activation, inner});
    } else {
      linear(normed, layer.up, inner, stack.activation);
    }
    add(inner, layer.down, layer.norms.after);
  }
  /// Adds what the last sublayer has computed. The stack's output is in `normed` then.
  void end() { begin(stack.final_norm); }

  const Stack& stack;
  Program program;
  TensorId x, accumulators, queries_keys_values, context, inner, gate;
  TensorId normed;

 private:
  // Computes the sublayer's output, which begin() of the next sublayer adds to the stream.
  void add(TensorId from, const Linear& layer, const Norm& norm_after) {
    linear(from, layer, accumulators);
    pending = true;
    after = norm_after;
  }
  // Begins a sublayer: adds the output of the sublayer before it, and sets `normed`.
  void begin(const Norm& before) {
    if (before && !has_normed) {
      normed_rows = program.tensor(TensorKind::kComputeType, stack.width);
      has_normed = true;
    }
    normed = before ? normed_rows : x;
    if (pending || after || before)
      program.add(AddNorm{x, pending ? accumulators : x, after, before, normed});
    pending = false;
    after = Norm{};
  }

  // This is the norm after the sublayer whose output has not been added yet, or the norm of the
  // embeddings.
  Norm after;
  bool pending = false;  // The output of a sublayer has not been added yet.
  bool has_normed = false;
  TensorId normed_rows;
};

}  // namespace

Program encoder_program(const Network& network) {
  StackProgram encoder(network.encoder);
  for (std::size_t i = 0; i < network.encoder_layers.size(); ++i) {
    encoder.attend_self(network.encoder_layers[i].self, i);
    encoder.feed_forward(network.encoder_layers[i].feed_forward);
  }
  encoder.end();
  const TensorId keys_values =
      encoder.program.tensor(TensorKind::kComputeType, network.cross_keys_values.weight.rows);
  encoder.linear(encoder.normed, network.cross_keys_values, keys_values);
  encoder.program.set_out(keys_values);
  return std::move(encoder.program);
}

Program step_program(const Network& network) {
  StackProgram decoder(network.decoder);
  const TensorId query =
      decoder.program.tensor(TensorKind::kComputeType, network.decoder.cross.width());
  for (std::size_t i = 0; i < network.decoder_layers.size(); ++i) {
    decoder.attend_self(network.decoder_layers[i].self, i);
    decoder.attend_cross(network.decoder_layers[i].cross, i, query);
    decoder.feed_forward(network.decoder_layers[i].feed_forward);
  }
  decoder.end();
  decoder.program.set_out(decoder.normed);
  return std::move(decoder.program);
}

}  // namespace xlate
