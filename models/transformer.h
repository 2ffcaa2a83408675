// The encoder-decoder Transformer that a file describes, as a SequenceModel: its weights, its
// programs and their rooms.
#pragma once

#include <memory>
#include <vector>

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/sequence_model.h"
#include "engine/workspace.h"
#include "models/model_file.h"
#include "models/network.h"
#include "models/sinusoids.h"

namespace xlate {

class Transformer final : public SequenceModel {
 public:
  /// Loads the weights. Throws Error where a tensor is missing or has another shape.
  Transformer(const ModelFile&, Backend&);

  CacheShape cache_shape() const override;
  void allocate(const Capacity&) override;
  void begin(const PagedCaches&) override;
  std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence>) override;
  void install(Queue&, const Encoded&, std::int64_t first,
               std::span<const std::int32_t> slots) override;
  void step(const StepRows&, Search&) override;

 private:
  struct EncodedBatch;

  void make_sinusoids();
  /// Bytes that the ids, positions, slots and offsets of a batch take.
  static std::size_t index_bytes(std::int64_t tokens, std::int64_t sentences);

  Backend& backend_;
  std::unique_ptr<Queue> queue_;  // for loading
  NetworkDescription described_;
  Network network_;
  std::vector<Buffer> weights_;
  Sinusoids sinusoids_;  // for the embeddings that have no stored table

  Capacity capacity_;
  Program encoder_program_, step_program_;
  Arena indices_;
  Workspace encoder_workspace_, step_workspace_;
  PagedCaches caches_;
};

}  // namespace xlate
