// Implements the classes of latencies.
#include "app/latency.h"

#include <algorithm>
#include <cmath>

namespace xlate {

void Latency::add(double milliseconds) {
  ++classes_[static_cast<int>(std::ceil(std::log(std::max(milliseconds, 1e-6)) / std::log(1.01)))];
  ++count_;
  max_ = std::max(max_, milliseconds);
}

double Latency::percentile(double share) const {
  auto left = static_cast<std::int64_t>(std::ceil(share * static_cast<double>(count_)));
  for (const auto& [index, count] : classes_) {
    left -= count;
    if (left <= 0) return std::min(max_, std::pow(1.01, index));
  }
  return max_;
}

std::vector<Latency::Bar> Latency::histogram() const {
  // A bar has this many classes. Class i ends at 1.01^i.
  constexpr int kClasses = 7;
  std::vector<Bar> bars;
  int last = 0;
  for (const auto& [index, count] : classes_) {
    const int bar = static_cast<int>(std::ceil(static_cast<double>(index) / kClasses));
    if (bars.empty() || bar != last)
      bars.push_back({.from = std::pow(1.01, kClasses * (bar - 1)),
                      .to = std::pow(1.01, kClasses * bar),
                      .lines = 0});
    bars.back().lines += count;
    last = bar;
  }
  return bars;
}

}  // namespace xlate
