// Declares the statistics of what a runner has done.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend.h"

namespace xlate {

/// Says what a run did. All counts but `batches`, `preempted`, `steps` and `rows` are of sentences
/// that were decoded. Tokens and row steps of a preempted sentence are counted once, when it is
/// done.
struct RunnerStatistics {
  static constexpr std::int64_t kBucketTokens = 8;
  /// Has the sums over the sentences whose source lengths lie in one range. The row steps of a
  /// sentence are K times the number of steps until it was done.
  struct Bucket {
    std::int64_t lines = 0, source_tokens = 0, target_tokens = 0, row_steps = 0;
  };
  std::int64_t source_tokens = 0;
  std::int64_t target_tokens = 0;  // It is that of the best hypotheses, end tokens included.
  std::int64_t target_tokens_without_end = 0;
  std::int64_t hit_limit = 0;  // It counts sentences with Decoded::hit_limit.
  std::int64_t batches = 0;    // It counts encoder batches.
  std::int64_t preempted = 0;  // It counts preemptions where pages had run out.
  // `rows` is the sum of the rows of all steps, those of empty groups included. `rows_useful` is
  // the sum of the buckets' row steps.
  std::int64_t steps = 0, rows = 0, rows_useful = 0;
  WorkSeconds seconds;
  std::vector<Bucket> buckets;  // Source lengths are 1 to 8, 9 to 16, and so on.

  /// Adds what another runner did, but for the times.
  void add(const RunnerStatistics&);
  /// Returns the bucket of the sentences with this many source tokens.
  Bucket& bucket_of(std::int64_t source_tokens);
};

}  // namespace xlate
