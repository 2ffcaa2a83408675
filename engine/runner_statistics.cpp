// Implements the sums of the statistics of several runners.
#include "engine/runner_statistics.h"

#include <algorithm>

namespace xlate {

void RunnerStatistics::add(const RunnerStatistics& other) {
  source_tokens += other.source_tokens;
  target_tokens += other.target_tokens;
  target_tokens_without_end += other.target_tokens_without_end;
  hit_limit += other.hit_limit;
  batches += other.batches;
  preempted += other.preempted;
  steps += other.steps;
  rows += other.rows;
  rows_useful += other.rows_useful;
  buckets.resize(std::max(buckets.size(), other.buckets.size()));
  for (std::size_t i = 0; i < other.buckets.size(); ++i) {
    buckets[i].lines += other.buckets[i].lines;
    buckets[i].source_tokens += other.buckets[i].source_tokens;
    buckets[i].target_tokens += other.buckets[i].target_tokens;
    buckets[i].row_steps += other.buckets[i].row_steps;
  }
}

RunnerStatistics::Bucket& RunnerStatistics::bucket_of(std::int64_t source_tokens) {
  const auto index = static_cast<std::size_t>((source_tokens - 1) / kBucketTokens);
  if (buckets.size() <= index) buckets.resize(index + 1);
  return buckets[index];
}

}  // namespace xlate
