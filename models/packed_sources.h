// Packs the ids of sources behind one another, without padding, and copies them to a backend.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/arena.h"
#include "engine/batch.h"
#include "models/network_description.h"

namespace xlate {

/// Holds a batch of B sources of N tokens together. It must live as long as the device uses the
/// arrays that upload() has made.
class PackedSources {
 public:
  PackedSources() = default;
  /// Takes the description of the positions, and the row of the table of positions for tokens
  /// without a place.
  PackedSources(const EmbeddingDescription& embedding, std::int32_t zeros)
      : unplaced_(embedding.unplaced), zeros_(zeros) {}

  /// Returns the bytes of an arena for `tokens` tokens of `sources` sources.
  static std::size_t bytes(std::int64_t tokens, std::int64_t sources);

  void append(std::span<const std::int32_t> ids);
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  const std::vector<std::int32_t>& offsets() const { return offsets_; }

  /// Copies the arrays to the device in the order of the queue. There must be a token.
  void upload(Backend&, Queue&, Arena&);
  /// Returns the position of each token in its source, [N] on the device.
  const std::int32_t* positions() const { return positions_device_; }
  /// Returns the rows [first, first + count) of the batch as a pass, after upload().
  PackedRows pass(std::int64_t first, std::int64_t count) const;

 private:
  std::int32_t unplaced_ = -1, zeros_ = -1;
  std::vector<std::int32_t> ids_, positions_, offsets_{0};
  // These are the rows of the table of positions that the tokens read.
  std::vector<std::int32_t> placed_;
  const std::int32_t *ids_device_ = nullptr, *positions_device_ = nullptr,
                     *placed_device_ = nullptr, *offsets_device_ = nullptr;
};

}  // namespace xlate
