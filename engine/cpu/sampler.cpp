// Implements draws by sorting the row.
#include "engine/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace xlate::cpu {
namespace {

struct Item {
  float value;
  std::int32_t id;
};

// The higher ids of equal values come first, because top-p keeps these.
bool before(const Item& a, const Item& b) {
  return a.value != b.value ? a.value > b.value : a.id > b.id;
}

}  // namespace

std::vector<WeightedId> kept_ids(const Sampling& sampling, std::span<const float> row) {
  std::vector<Item> items;
  for (std::size_t id = 0; id < row.size(); ++id) {
    if (row[id] > -std::numeric_limits<float>::infinity())
      items.push_back({row[id], static_cast<std::int32_t>(id)});
  }
  if (items.empty()) return {};
  std::sort(items.begin(), items.end(), before);
  const float most = items.front().value;
  if (sampling.top_k > 0 && static_cast<std::size_t>(sampling.top_k) < items.size()) {
    const float least = items[static_cast<std::size_t>(sampling.top_k) - 1].value;
    items.erase(std::find_if(items.begin(), items.end(),
                             [&](const Item& item) { return item.value < least; }),
                items.end());
  }
  std::vector<WeightedId> kept;
  std::uint64_t sum = 0;
  for (const Item& item : items) {
    kept.push_back({item.id, sampling_weight(item.value - most, sampling.temperature)});
    sum += kept.back().weight;
  }
  if (sampling.top_p < 1) {
    const std::uint64_t reach = weight_to_reach(sampling.top_p, sum);
    std::size_t count = 0;
    for (std::uint64_t reached = 0; reached < reach; ++count) reached += kept[count].weight;
    kept.resize(count);
  }
  std::sort(kept.begin(), kept.end(),
            [](const WeightedId& a, const WeightedId& b) { return a.id < b.id; });
  return kept;
}

std::optional<std::int32_t> draw_id(const Sampling& sampling, std::span<const float> row,
                                    const DrawName& name) {
  const std::vector<WeightedId> kept = kept_ids(sampling, row);
  std::uint64_t sum = 0;
  for (const WeightedId& each : kept) sum += each.weight;
  std::uint64_t left = high_product(sum, random_bits(sampling.seed, name));
  for (const WeightedId& each : kept) {
    if (left < each.weight) return each.id;
    left -= each.weight;
  }
  return std::nullopt;
}

}  // namespace xlate::cpu
