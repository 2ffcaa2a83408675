// Policy: the figures that decide how much is in flight and who waits for whom. They change speed
// and memory, never what a line becomes.
#pragma once

#include <algorithm>
#include <cstdint>

namespace xlate {

/// A default is the CPU's figure, or everybody's; policy_for() gives those of a device. A reason
/// names where it was measured, if it was.
struct Policy {
  // What is in flight.
  /// Hypothesis rows of a step. Products have reached their plateau with so many, and more only
  /// take memory (docs/benchmarks.md).
  std::int64_t most_rows = 16384;
  /// Sentences that --batch-tokens auto is made for. On the CPU beam 4 was fastest with 64 of the
  /// usual length, which are 2048 source tokens (docs/benchmarks.md).
  std::int64_t batch_sentences = 64;
  /// Source tokens of a sentence, where nothing is known of the input.
  std::int64_t usual_source_tokens = 32;
  /// Source tokens of the budget for each slot. Sentences shorter than this leave a part of the
  /// budget idle instead of making more rows.
  std::int64_t tokens_per_slot = 8;
  /// Search's own arrays take at most one part in so many of what caches may take.
  std::int64_t state_share = 8;
  /// Source tokens encoded at once. More would only take memory.
  std::int64_t encoder_tokens = 16384;
  /// Slots are refilled once one part in so many of the budget is free, which makes encoder batches
  /// fewer and larger.
  std::int64_t refill_share = 8;
  /// Steps of a sentence that is alone, where a backend runs several in one go. A signal waits for
  /// them.
  std::int64_t steps_at_once = 32;
  /// Lines read ahead and sorted by length together.
  std::int64_t window = 2000;

  // Pages of caches.
  /// Tokens of a page. With 8 instead of 16, and a forecast for each step, twice the sentences
  /// fitted into little more memory (docs/benchmarks.md).
  std::int64_t page_tokens = 8;
  /// A sentence of S source tokens is expected to need expected_factor·S + expected_extra target
  /// tokens. What is found in a run changes the factor.
  double expected_factor = 1.125;
  std::int64_t expected_extra = 4;
  /// The factor that a run begins with counts as so many source tokens read, and once more than
  /// most_tokens were read, earlier sentences count half.
  double first_tokens = 4096, most_tokens = 262144;
  /// Source tokens of the sentences that pools are made for. If many are shorter, some wait for
  /// room.
  std::int64_t expected_source = 24;
  /// The part of the pages that sentences in flight need at their ends which is in use at a time,
  /// since some begin when others end. With less, steps have fewer rows: 0.5 instead of 0.6
  /// saved 1.5 of 8 GiB and cost 3 % of the speed (docs/benchmarks.md).
  double in_use = 0.6;

  /// Tokens of a sentence's last page that stay empty, on the average.
  double unused_tokens() const { return static_cast<double>(page_tokens) / 2; }
  /// Source tokens in flight where the command line leaves them to the program, before memory
  /// bounds them.
  std::int64_t batch_tokens(std::int64_t beams) const {
    return std::clamp<std::int64_t>(most_rows / beams, 1, batch_sentences) * usual_source_tokens;
  }
};

/// The one place where a policy is made. It is called where the model is known too: a figure that
/// comes to depend on the model gets its value here as well. So far none does.
inline Policy policy_for(bool gpu) {
  Policy policy;
  if (gpu) {
    // More sentences would only take memory, for the caches of their sources (docs/benchmarks.md).
    policy.batch_sentences = 8192;
    policy.window = 100000;
  }
  return policy;
}

}  // namespace xlate
