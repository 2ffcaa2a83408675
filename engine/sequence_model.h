// SequenceModel: all that a run may ask of a model, which tells the shape of its caches and is
// handed views of them: who gets which page is no business of it (engine/caches.h). Slot s with K
// beams owns rows s·K … s·K+K−1 of every table; which slots take part in a step, their tokens and
// lengths are arrays on the device, so that no number from the host changes from step to step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/batch.h"
#include "engine/search_state.h"

namespace xlate {

class Search;

/// A sentence to decode: its source ids, end token included, and how many tokens it may get, end
/// token included.
struct SourceSentence {
  std::span<const std::int32_t> ids;
  std::int32_t limit = 0;
};

/// How much room a run needs; fixed when it begins, so that addresses never change.
struct Capacity {
  std::int64_t slots = 1;
  std::int64_t beams = 1;
  std::int64_t encoder_tokens = 1;  // packed source tokens of one encoder batch
  std::int64_t source_tokens = 1;   // in flight in all slots
  std::int64_t longest_source = 1;
  std::int64_t longest_target = 1;  // the largest limit of a sentence
  double target_factor =
      1;  // limit of a sentence of S source tokens: at most target_factor·S + target_extra
  std::int64_t target_extra = 0;
};

/// What a model keeps of the tokens before, and what else a token in flight costs it. All layers
/// are alike.
struct CacheShape {
  std::int64_t layers = 1;
  std::int64_t width = 1;  // of a key, and of a value, in elements of the backend's compute type
  bool cross_keys =
      true;  // keys of source tokens too, for all beams, beside each beam's own of target tokens
  double working_bytes = 0;  // of the model's own rows, for each source token in flight
};

/// What an encoder batch left on the device, until the next batch is encoded.
class Encoded {
 public:
  virtual ~Encoded() = default;
};

class SequenceModel {
 public:
  virtual ~SequenceModel() = default;

  /// The same for all runs.
  virtual CacheShape cache_shape() const = 0;
  /// Makes room for a run's rows, before its caches get their share of what is left. Throws Error
  /// where the device has too little.
  virtual void allocate(const Capacity&) = 0;
  /// Begins the run for which room was made. Its caches live until the last step.
  virtual void begin(const PagedCaches&) = 0;
  /// Encodes a batch; at most `encoder_tokens` source tokens in all.
  virtual std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence>) = 0;
  /// Puts sentence first + i of the batch into slots[i]. The device knows the pages that are
  /// reserved for it.
  virtual void install(Queue&, const Encoded&, std::int64_t first,
                       std::span<const std::int32_t> slots) = 0;
  /// Decodes one step over the rows given, for whose next tokens the caches have room: hands its
  /// program, or hidden rows, to Search::step.
  virtual void step(const StepRows&, Search&) = 0;
};

}  // namespace xlate
