#include "models/programs.h"

#include <utility>

namespace xlate {
namespace {

/// The rooms that all layers of a stack share, and what is done alike in both stacks.
struct StackProgram {
  explicit StackProgram(const Stack& described)
      : stack(described),
        x(program.room(RoomKind::kStream, stack.width)),
        sums(program.room(RoomKind::kSums, stack.width)),
        queries_keys_values(program.room(RoomKind::kRows, 3 * stack.width)),
        context(program.room(RoomKind::kRows, stack.width)),
        inner(program.room(RoomKind::kRows, stack.inner)) {}

  void embed() {
    program.add(Embed{stack.embedding, x});
    if (stack.embedding_norm.gain) program.add(AddNorm{x, x, stack.embedding_norm});
  }
  void linear(Room from, const Linear& layer, Room to, Activation activation = Activation::kNone) {
    program.add(ApplyLinear{from, layer, activation, to});
  }
  /// Ends a sublayer: x = after(x + layer(from)).
  void add(Room from, const Linear& layer, const Norm& after) {
    linear(from, layer, sums);
    program.add(AddNorm{x, sums, after});
  }
  void attend_self(const SelfAttention& attention, std::size_t layer) {
    linear(x, attention.queries_keys_values, queries_keys_values);
    program.add(AttendSelf{queries_keys_values, layer, stack.heads, context});
    add(context, attention.out, attention.after);
  }
  void attend_source(const SourceAttention& attention, std::size_t layer, Room query) {
    linear(x, attention.query, query);
    program.add(AttendSource{query, layer, stack.heads, context});
    add(context, attention.out, attention.after);
  }
  void feed_forward(const FeedForward& layer) {
    linear(x, layer.up, inner, stack.activation);
    add(inner, layer.down, layer.after);
  }

  const Stack& stack;
  Program program;
  Room x, sums, queries_keys_values, context, inner;
};

}  // namespace

Program reading_program(const Network& network) {
  StackProgram encoder(network.encoder);
  encoder.embed();
  for (std::size_t i = 0; i < network.encoder_layers.size(); ++i) {
    encoder.attend_self(network.encoder_layers[i].self, i);
    encoder.feed_forward(network.encoder_layers[i].feed_forward);
  }
  const Room keys_values =
      encoder.program.room(RoomKind::kRows, network.source_keys_values.weight.rows);
  encoder.linear(encoder.x, network.source_keys_values, keys_values);
  encoder.program.set_out(keys_values);
  return std::move(encoder.program);
}

Program step_program(const Network& network) {
  StackProgram decoder(network.decoder);
  const Room query = decoder.program.room(RoomKind::kRows, network.decoder.width);
  decoder.embed();
  for (std::size_t i = 0; i < network.decoder_layers.size(); ++i) {
    decoder.attend_self(network.decoder_layers[i].self, i);
    decoder.attend_source(network.decoder_layers[i].source, i, query);
    decoder.feed_forward(network.decoder_layers[i].feed_forward);
  }
  decoder.program.set_out(decoder.x);
  return std::move(decoder.program);
}

}  // namespace xlate
