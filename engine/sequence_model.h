// SequenceModel: what the runner asks of a model. A model says which shape its caches have, and
// gets views of them. It does not decide which slot gets which page (engine/caches.h does). The
// slots that take part in a step, their tokens and their lengths are arrays on the device, so that
// nothing that the host passes changes from step to step.
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

/// Holds what the model and the caches need of a sentence.
struct SourceSentence {
  // They are the ids of the source, end token included, or those of the prompt.
  std::span<const std::int32_t> ids;
  std::int32_t limit = 0;  // It bounds the target tokens, end token included.
};

/// The largest sizes of a run. They are fixed when it begins, so that addresses never change.
struct Capacity {
  std::int64_t slots = 1;
  std::int64_t beams = 1;
  std::int64_t encoder_tokens = 1;  // packed source tokens of one encoder batch
  // A batch of prompts is read in passes of at most this many tokens. Sources are read in one.
  std::int64_t pass_tokens = 1;
  std::int64_t source_tokens = 1;   // source tokens in flight, in all slots together
  std::int64_t longest_source = 1;  // tokens of the longest source
  std::int64_t longest_target = 1;  // the largest limit of a sentence
  // The limit of a sentence of S source tokens is at most target_factor · S + target_extra.
  double target_factor = 1;
  std::int64_t target_extra = 0;
};

/// Says what a model does with the tokens of a sentence's source, and which caches it has for them
/// besides the self caches (PagedCaches).
enum class SourceKeys : std::uint8_t {
  // It keeps no keys of them.
  kNone,
  // It encodes them, and its cross caches hold the keys and values of all of them.
  kCross,
  // They are a prompt that it continues. Its shared caches hold the keys and values of all but the
  // last one, which is the start token.
  kShared,
};

/// The shape of the keys and values that a model caches, and the other memory that it needs for a
/// token in flight. All layers have the same shape.
struct CacheShape {
  std::int64_t layers = 1;
  std::int64_t width = 1;  // of a key, and of a value, in elements of the backend's compute type
  SourceKeys source_keys = SourceKeys::kCross;
  // This is the number of bytes of the model's workspaces for one source token in flight.
  double working_bytes = 0;
};

/// A handle to what an encoder batch left on the device. It is valid until the next batch is
/// encoded.
class Encoded {
 public:
  virtual ~Encoded() = default;
};

/// A model that encodes sources and decodes targets token by token. A run calls allocate() and
/// begin() once, and then the other functions. Every function but cache_shape() throws Error if the
/// device fails.
class SequenceModel {
 public:
  virtual ~SequenceModel() = default;

  /// Returns the shape of the model's caches, which is the same in all runs.
  virtual CacheShape cache_shape() const = 0;
  /// Allocates the memory of a run but for its caches, which are allocated afterwards. Throws Error
  /// if the device has too little memory.
  virtual void allocate(const Capacity&) = 0;
  /// Begins the run for which memory was allocated. The caches must live until the last step.
  virtual void begin(const PagedCaches&) = 0;
  /// Encodes a batch of sources, or reads a batch of prompts up to their last tokens. They have at
  /// most Capacity::encoder_tokens tokens in all.
  virtual std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence>) = 0;
  /// Puts sentence first + i of the batch into slots[i], for each slot of the list. The pages of
  /// these slots must have been published on this queue (Caches::publish).
  virtual void install(Queue&, const Encoded&, std::int64_t first,
                       std::span<const std::int32_t> slots) = 0;
  /// Enqueues one decoding step over the rows, for whose next tokens the caches have room. The
  /// model passes its program, or its hidden rows, to Search::step().
  virtual void step(const StepRows&, Search&) = 0;
};

}  // namespace xlate
