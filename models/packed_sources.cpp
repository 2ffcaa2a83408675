// Implements the packing of sources.
#include "models/packed_sources.h"

namespace xlate {
namespace {

const std::int32_t* upload_array(Backend& backend, Queue& queue, Arena& arena,
                                 const std::vector<std::int32_t>& values) {
  auto* device = arena.array<std::int32_t>(std::ssize(values));
  backend.upload(queue, std::as_bytes(std::span(values)), device);
  return device;
}

}  // namespace

std::size_t PackedSources::bytes(std::int64_t tokens, std::int64_t sources) {
  return 3 * Arena::bytes_of(1, tokens, sizeof(std::int32_t)) +
         Arena::bytes_of(1, sources + 1, sizeof(std::int32_t));
}

void PackedSources::append(std::span<const std::int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  std::int32_t place = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    positions_.push_back(static_cast<std::int32_t>(i));
    const bool counts = unplaced_ < 0 || ids[i] != unplaced_;
    placed_.push_back(counts ? place++ : zeros_);
  }
  offsets_.push_back(static_cast<std::int32_t>(ids_.size()));
}

void PackedSources::upload(Backend& backend, Queue& queue, Arena& arena) {
  ids_device_ = upload_array(backend, queue, arena, ids_);
  positions_device_ = upload_array(backend, queue, arena, positions_);
  offsets_device_ = upload_array(backend, queue, arena, offsets_);
  placed_device_ =
      placed_ == positions_ ? positions_device_ : upload_array(backend, queue, arena, placed_);
}

PackedRows PackedSources::pass(std::int64_t first, std::int64_t count) const {
  return {.count = count,
          .ids = ids_device_ + first,
          .positions = placed_device_ + first,
          .offsets_host = offsets_,
          .offsets = offsets_device_,
          .first = first};
}

}  // namespace xlate
