// Lists the operations of a post-norm Transformer: those of the encoder, and those of a decoding
// step.
#include "models/programs.h"

#include <utility>

namespace xlate {
namespace {

// Collects the operations of one stack. All layers share the same tensors of the workspace, and
// both stacks have these operations in common.
struct StackProgram {
  explicit StackProgram(const Stack& described)
      : stack(described),
        x(program.tensor(TensorKind::kResidual, stack.width)),
        accumulators(program.tensor(TensorKind::kAccumulator, stack.width)),
        queries_keys_values(program.tensor(TensorKind::kComputeType, 3 * stack.width)),
        context(program.tensor(TensorKind::kComputeType, stack.width)),
        inner(program.tensor(TensorKind::kComputeType, stack.inner)) {}

  void embed() {
    program.add(Embed{stack.embedding, x});
    if (stack.embedding_norm.gain) program.add(AddNorm{x, x, stack.embedding_norm});
  }
  void linear(TensorId from, const Linear& layer, TensorId to,
              Activation activation = Activation::kNone) {
    program.add(ApplyLinear{from, layer, activation, to});
  }
  // Ends a sublayer: x = after(x + layer(from)).
  void add(TensorId from, const Linear& layer, const Norm& after) {
    linear(from, layer, accumulators);
    program.add(AddNorm{x, accumulators, after});
  }
  void attend_self(const SelfAttention& attention, std::size_t layer) {
    linear(x, attention.queries_keys_values, queries_keys_values);
    program.add(AttendSelf{queries_keys_values, layer, stack.heads, context});
    add(context, attention.out, attention.after);
  }
  void attend_cross(const CrossAttention& attention, std::size_t layer, TensorId query) {
    linear(x, attention.query, query);
    program.add(AttendCross{query, layer, stack.heads, context});
    add(context, attention.out, attention.after);
  }
  void feed_forward(const FeedForward& layer) {
    linear(x, layer.up, inner, stack.activation);
    add(inner, layer.down, layer.after);
  }

  const Stack& stack;
  Program program;
  // `x` is the residual stream, and `inner` is the feed-forward's activation.
  TensorId x, accumulators, queries_keys_values, context, inner;
};

}  // namespace

Program encoder_program(const Network& network) {
  StackProgram encoder(network.encoder);
  encoder.embed();
  for (std::size_t i = 0; i < network.encoder_layers.size(); ++i) {
    encoder.attend_self(network.encoder_layers[i].self, i);
    encoder.feed_forward(network.encoder_layers[i].feed_forward);
  }
  const TensorId keys_values =
      encoder.program.tensor(TensorKind::kComputeType, network.cross_keys_values.weight.rows);
  encoder.linear(encoder.x, network.cross_keys_values, keys_values);
  encoder.program.set_out(keys_values);
  return std::move(encoder.program);
}

Program step_program(const Network& network) {
  StackProgram decoder(network.decoder);
  const TensorId query = decoder.program.tensor(TensorKind::kComputeType, network.decoder.width);
  decoder.embed();
  for (std::size_t i = 0; i < network.decoder_layers.size(); ++i) {
    decoder.attend_self(network.decoder_layers[i].self, i);
    decoder.attend_cross(network.decoder_layers[i].cross, i, query);
    decoder.feed_forward(network.decoder_layers[i].feed_forward);
  }
  decoder.program.set_out(decoder.x);
  return std::move(decoder.program);
}

}  // namespace xlate
