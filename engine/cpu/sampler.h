// Draws tokens on the CPU.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/sampling.h"

namespace xlate::cpu {

/// An id that may be drawn, and its weight (sampling_weight()).
struct WeightedId {
  std::int32_t id;
  std::uint64_t weight;
};

/// Returns what top-k and top-p keep of a row of logits or log-probabilities, in ascending order of
/// the ids. −∞ stands for an id that may not be chosen. There are none if no logit is finite.
std::vector<WeightedId> kept_ids(const Sampling&, std::span<const float> row);

/// Draws an id of the row. There is none if none may be chosen.
std::optional<std::int32_t> draw_id(const Sampling&, std::span<const float> row, const DrawName&);

}  // namespace xlate::cpu
