// Implements SequenceModel for the Transformer that a model file describes: holds its weights, its
// programs and their workspaces.
#pragma once

#include <memory>
#include <vector>

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/sequence_model.h"
#include "engine/workspace.h"
#include "models/network.h"
#include "models/sinusoids.h"

namespace xlate {

/// Serves one run at a time: allocate() and begin() come before the first encode(). Only the
/// backend must outlive it. engine/sequence_model.h says what the functions do.
class Transformer final : public SequenceModel {
 public:
  /// Uses the weights of a network, which others may use as well.
  Transformer(LoadedNetwork, Backend&);

  CacheShape cache_shape() const override;
  /// Allocates the positions, the index arrays and both workspaces, and writes both programs.
  /// Throws Error if the backend has too little memory.
  void allocate(const Capacity&) override;
  void begin(const PagedCaches&) override;
  /// Reads the sentences packed, without padding. The result refers to the workspace and the index
  /// arrays, so that it is valid until the next call.
  std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence>) override;
  void install(Queue&, const Encoded&, std::int64_t first,
               std::span<const std::int32_t> slots) override;
  void step(const StepRows&, Search&) override;

 private:
  struct EncodedBatch;

  /// Returns the most tokens over which the source's program is run at once.
  std::int64_t pass_tokens() const;
  /// Returns the bytes that the ids, positions, slots and offsets of a batch take.
  static std::size_t index_bytes(std::int64_t tokens, std::int64_t sentences);

  Backend& backend_;
  // Sinusoids are copied on this queue behind the weights, so that both queues of a run can wait
  // for it.
  std::unique_ptr<Queue> queue_;
  LoadedNetwork loaded_;
  // The stacks without a stored table of positions share these.
  Sinusoids sinusoids_;

  Capacity capacity_;
  Program source_program_, step_program_;
  // Holds the ids, positions, slots and offsets of the batch of sources.
  Arena indices_;
  Workspace source_workspace_, step_workspace_;
  PagedCaches caches_;
};

}  // namespace xlate
