// The encoder-decoder Transformer (Vaswani et al. 2017) that a file describes, as a SequenceModel: weights, and the network as
// straight code over the backend's verbs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/sequence_model.h"
#include "models/model_file.h"
#include "models/network.h"

namespace xlate {

class Transformer final : public SequenceModel {
 public:
  /// Loads the weights. Throws Error where a tensor is missing or has another shape.
  Transformer(const ModelFile&, Backend&);

  CacheShape cache_shape() const override;
  void make_room(const Capacity&) override;
  void begin(const CacheViews&) override;
  std::unique_ptr<Encoded> encode(Queue&, std::span<const Source>) override;
  void install(Queue&, const Encoded&, std::int64_t first, std::span<const std::int32_t> slots) override;
  Tensor step(Queue&, const SearchState&, const StepRows&) override;
  const Projection& projection() const override { return network_.projection; }

 private:
  struct Batch;

  /// Tells the backend which products will come.
  void announce_products() const;
  void make_sinusoids();
  void fill_positions(std::int64_t count);
  std::size_t encoder_bytes(std::int64_t tokens, std::int64_t sentences) const;
  std::size_t decoder_bytes(std::int64_t rows) const;
  /// What passes through a layer, [N, D] each but `inner` [N, F]: x is the residual stream, `between` room for what is added to it next, float32.
  struct LayerRows {
    WideRows x;
    Tensor between, context, inner;
  };
  LayerRows layer_rows(Arena&, std::int64_t rows, std::int64_t inner) const;
  std::size_t layer_bytes(std::int64_t rows, std::int64_t inner) const;
  bool keeps_rest() const;
  /// x = norm(x), where the stack has a norm on its embeddings.
  void run_embedding_norm(Queue&, const Stack&, const LayerRows&);
  /// x = after(x + down(activation(up(x)))).
  void run_feed_forward(Queue&, const Stack&, const FeedForward&, const LayerRows&);

  Backend& backend_;
  std::unique_ptr<Queue> queue_;  // for loading
  NetworkDescription described_;
  Network network_;
  std::vector<Buffer> weights_;
  Tensor sinusoids_;  // positions of the embeddings that have no stored table; the first positions_filled_ rows are computed
  Buffer sinusoids_memory_;
  std::int64_t positions_filled_ = 0;

  Capacity capacity_;
  Arena encoder_arena_, decoder_arena_;
  CacheViews caches_;
};

}  // namespace xlate
