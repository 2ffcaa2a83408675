// Counts the latencies of lines (--line-buffered).
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace xlate {

/// Counts latencies in classes whose bounds are one percent apart, so that percentiles of any
/// number of lines take little memory.
class Latency {
 public:
  void add(double milliseconds);
  /// Returns a percentile in milliseconds by the nearest-rank method, or 0 if there are no
  /// latencies. It is the upper bound of the class of the smallest latency that at least `share` of
  /// all latencies do not exceed, and at most the largest latency.
  double percentile(double share) const;
  double max() const { return max_; }
  /// Counts the lines of the latencies above `from` and up to `to`, both in milliseconds.
  struct Bar {
    double from, to;
    std::int64_t lines;
  };
  /// Returns the bars of a histogram in which each bar is about 7 % wide, without empty ones.
  std::vector<Bar> histogram() const;

 private:
  std::map<int, std::int64_t> classes_;
  std::int64_t count_ = 0;
  double max_ = 0;
};

}  // namespace xlate
