// Lists the operations of a Transformer: those that read a source or a prompt, and those of a
// decoding step.
#include "models/programs.h"

#include <optional>
#include <utility>

namespace xlate {
namespace {

bool same(const Norm& a, const Norm& b) {
  return a.gain.data == b.gain.data && a.shift.data == b.shift.data;
}

// Collects the operations of one stack. All layers share the same tensors of the workspace, and
// all stacks have these operations in common. A product reads `normed`, which is the residual
// stream itself or what the norm before the sublayer has made of it. That norm is computed together
// with the addition that ends the sublayer before. Therefore begin() of a sublayer adds what the
// sublayer before it has computed, and end() adds the last one.
class StackProgram {
 public:
  explicit StackProgram(const Stack& described)
      : stack(described),
        x(program.tensor(TensorKind::kResidual, stack.width)),
        accumulators(program.tensor(TensorKind::kAccumulator, stack.width)),
        queries_keys_values(program.tensor(TensorKind::kComputeType,
                                           stack.self.width() + 2 * stack.self.key_width())),
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
  /// Begins self-attention: computes the queries, keys and values.
  void project(const SelfAttention& attention) {
    begin(attention.norms.before);
    linear(normed, attention.queries_keys_values, queries_keys_values);
    if (attention.transform)
      program.add(TransformHeads{queries_keys_values, attention.transform, stack.self});
  }
  /// Copies keys and values of a prompt to `keys_values`, where the attention then reads them.
  void keep(std::size_t layer, TensorId keys_values) {
    program.add(Keep{queries_keys_values, layer, stack.self, keys_values});
    kept = keys_values;
  }
  /// Ends what project() began.
  void attend_self(const SelfAttention& attention, std::size_t layer) {
    Attention windowed = stack.self;
    windowed.window = attention.window;
    if (kept)
      program.add(AttendPrompts{queries_keys_values, *kept, layer, windowed, context});
    else
      program.add(AttendSelf{queries_keys_values, layer, windowed, context});
    add(context, attention.out, attention.norms);
  }
  void attend_cross(const CrossAttention& attention, std::size_t layer, TensorId query) {
    begin(attention.norms.before);
    linear(normed, attention.query, query);
    program.add(AttendCross{query, layer, stack.cross, context});
    add(context, attention.out, attention.norms);
  }
  void feed_forward(const FeedForward& layer) {
    begin(layer.norms.before);
    feed_normed(layer);
  }
  /// Ends a layer of a decoder alone whose attention project() began.
  void finish(const DecoderLayer& layer, std::size_t index) {
    if (!stack.parallel) {
      attend_self(layer.self, index);
      return feed_forward(layer.feed_forward);
    }
    // Both norms of the stream are computed before the attention is added to it. Families with one
    // norm for both sublayers have it twice in the network, with the same weights.
    const Norm& before = layer.feed_forward.norms.before;
    TensorId read = normed;
    if (!same(layer.self.norms.before, before)) {
      if (!has_second) second_rows = program.tensor(TensorKind::kComputeType, stack.width);
      has_second = true;
      read = second_rows;
      program.add(AddNorm{x, x, Norm{}, before, read});
    }
    attend_self(layer.self, index);
    begin(Norm{});
    normed = read;
    feed_normed(layer.feed_forward);
  }
  /// Adds what the last sublayer has computed. The stack's output is in `normed` then.
  void end() { begin(stack.final_norm); }

  const Stack& stack;
  Program program;
  TensorId x, accumulators, queries_keys_values, context, inner, gate;
  TensorId normed;
  // It is set in a program that reads prompts.
  std::optional<TensorId> kept;

 private:
  void feed_normed(const FeedForward& layer) {
    if (stack.gated) {
      linear(normed, layer.up, gate);
      program.add(ApplyGate{gate, stack.activation, inner});
    } else {
      linear(normed, layer.up, inner, stack.activation);
    }
    add(inner, layer.down, layer.norms);
  }
  // Computes the sublayer's output, which begin() of the next sublayer adds to the stream.
  void add(TensorId from, const Linear& layer, const SublayerNorms& norms) {
    linear(from, layer, accumulators);
    pending = true;
    inside = norms.inside, after = norms.after;
  }
  // Begins a sublayer: adds the output of the sublayer before it, and sets `normed`.
  void begin(const Norm& before) {
    if (before && !has_normed) {
      normed_rows = program.tensor(TensorKind::kComputeType, stack.width);
      has_normed = true;
    }
    normed = before ? normed_rows : x;
    if (pending)
      program.add(AddNorm{x, accumulators, after, before, normed, inside, stack.residual_scale});
    else if (after || before)
      program.add(AddNorm{x, x, after, before, normed});
    pending = false;
    inside = after = Norm{};
  }

  // These are norms of the sublayer whose output has not been added yet. Before the first sublayer,
  // `after` is the norm of the embeddings.
  Norm inside, after;
  bool pending = false;  // The output of a sublayer has not been added yet.
  bool has_normed = false, has_second = false;
  TensorId normed_rows, second_rows;
};

Program encoder_program(const Network& network) {
  StackProgram encoder(network.encoder);
  for (std::size_t i = 0; i < network.encoder_layers.size(); ++i) {
    encoder.project(network.encoder_layers[i].self);
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

// Adds a layer behind the keys and values of its self-attention, which are there already.
void add_rest_of_layer(StackProgram& decoder, const Network& network, std::size_t i,
                       TensorId query) {
  const DecoderLayer& layer = network.decoder_layers[i];
  if (!layer.cross) return decoder.finish(layer, i);
  decoder.attend_self(layer.self, i);
  decoder.attend_cross(layer.cross, i, query);
  decoder.feed_forward(layer.feed_forward);
}

// Returns the tensor for the queries of cross-attention, if there is any.
TensorId query_of(StackProgram& decoder, const Network& network) {
  if (!network.has_encoder()) return {};
  return decoder.program.tensor(TensorKind::kComputeType, network.decoder.cross.width());
}

// Begins a program over packed targets or prompts. It computes all layers or, if `keys_alone` is
// set, only the keys and values of the last one. Returns the queries of cross-attention of
// `query_layer` in `kept_query`, unless it is −1.
StackProgram packed_layers(const Network& network, bool keys_alone, std::int64_t query_layer,
                           TensorId& kept_query) {
  StackProgram decoder(network.decoder);
  const std::size_t layers = network.decoder_layers.size();
  const TensorId keys_values = decoder.program.tensor(
      TensorKind::kBatch, static_cast<std::int64_t>(layers) * 2 * network.decoder.self.key_width());
  const TensorId query = query_of(decoder, network);
  if (query_layer >= 0) kept_query = query_of(decoder, network);
  for (std::size_t i = 0; i < layers; ++i) {
    decoder.project(network.decoder_layers[i].self);
    decoder.keep(i, keys_values);
    const bool keeps = static_cast<std::int64_t>(i) == query_layer;
    if (!keys_alone || i + 1 < layers)
      add_rest_of_layer(decoder, network, i, keeps ? kept_query : query);
  }
  return decoder;
}

Program prompt_program(const Network& network) {
  TensorId none;
  StackProgram decoder = packed_layers(network, true, -1, none);
  decoder.program.set_out(*decoder.kept);
  return std::move(decoder.program);
}

}  // namespace

Program source_program(const Network& network) {
  return network.has_encoder() ? encoder_program(network) : prompt_program(network);
}

ScoringProgram scoring_program(const Network& network, std::int64_t query_layer) {
  TensorId query;
  StackProgram decoder = packed_layers(network, false, query_layer, query);
  decoder.end();
  decoder.program.set_out(decoder.normed);
  return {std::move(decoder.program), query};
}

Program step_program(const Network& network) {
  StackProgram decoder(network.decoder);
  const TensorId query = query_of(decoder, network);
  for (std::size_t i = 0; i < network.decoder_layers.size(); ++i) {
    decoder.project(network.decoder_layers[i].self);
    add_rest_of_layer(decoder, network, i, query);
  }
  decoder.end();
  decoder.program.set_out(decoder.normed);
  return std::move(decoder.program);
}

}  // namespace xlate
