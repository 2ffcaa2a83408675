// Policy: the figures that decide how much is in flight, and which sentences wait. They change
// speed and memory, but never the translation of a line.
#pragma once

#include <algorithm>
#include <cstdint>

namespace xlate {

/// The default values are those of the CPU, or of all devices. policy_for() gives the values of a
/// device. The budget is the number of source tokens that may be in flight (--batch-tokens). A
/// comment names the page with the measurement where there was one.
struct Policy {
  // These figures decide how much is in flight.

  /// The largest number of hypothesis rows of a step. With this many rows, the larger products of
  /// Transformer-base run at 90 % of the rate of a large square product (docs/kernels.md). At beam
  /// 4, 16384 rows are a budget of 131,072 tokens. A budget of 163,840 tokens was 4 % faster and
  /// took 9.40 GiB instead of 8.01 (docs/benchmarks-history.md, "Rows in flight").
  std::int64_t most_rows = 16384;
  /// --batch-tokens auto is made for this number of sentences, if they have no more rows than
  /// batch_rows. More of them share each reading of the weights. On two processors greedy search
  /// was fastest with 256 sentences of the usual length, which have 8192 source tokens, and beam 4
  /// with 128 (docs/benchmarks.md, "The CPU").
  std::int64_t batch_sentences = 256;
  std::int64_t batch_rows = 512;
  /// The number of source tokens of a sentence that --batch-tokens auto assumes, because it knows
  /// nothing of the input.
  std::int64_t usual_source_tokens = 32;
  /// There is one slot for this number of source tokens of the budget. Sentences that are shorter
  /// leave a part of the budget unused instead of making more rows.
  std::int64_t tokens_per_slot = 8;
  /// The arrays of search take at most 1/state_share of the memory that the caches may take.
  std::int64_t state_share = 8;
  /// The largest number of source tokens of an encoder batch, but for a single sentence that is
  /// longer. More would only take memory. A longer prompt is read in passes of as many tokens.
  std::int64_t encoder_tokens = 16384;
  /// A pass over prompts reads at least this many tokens where the batch has them. Products of
  /// fewer rows would be slow, and these need little memory.
  std::int64_t least_pass_tokens = 512;
  /// Slots are refilled once 1/refill_share of the budget is free. This makes encoder batches fewer
  /// and larger.
  std::int64_t refill_share = 8;
  /// The largest number of steps of a lone sentence that a backend runs in one call. A signal takes
  /// effect only after the call.
  std::int64_t steps_at_once = 32;
  /// The number of lines that are read ahead and sorted by length together.
  std::int64_t window = 2000;

  // These figures decide on the pages of the caches.

  /// The number of tokens of a page. With 8 instead of 16, and with a forecast of each step, twice
  /// as many sentences fitted into 8.01 GiB instead of 6.97 (docs/benchmarks-history.md, "What
  /// brought throughput up").
  std::int64_t page_tokens = 8;
  /// A sentence of S source tokens is expected to have expected_factor · S + expected_extra target
  /// tokens at the beginning of a run, which then learns both from the sentences decoded
  /// (Caches::expected_tokens).
  double expected_factor = 1.125;
  std::int64_t expected_extra = 4;
  /// A prompt is expected to be continued by this number of tokens and expected_extra, however long
  /// it is, until the run has learned a mean from the prompts that it has continued.
  std::int64_t expected_continuation = 128;
  /// What a run begins with counts as much as this number of sentences that were decoded. Whenever
  /// more than most_sentences have been counted, everything counted so far is halved, so that
  /// recent sentences count more.
  double first_sentences = 170, most_sentences = 11000;
  /// The number of source tokens of a sentence for which the page pools are sized. If many
  /// sentences are shorter, some of them wait for pages.
  std::int64_t expected_source = 24;
  /// The self caches have pages for this share of what the sentences in flight need at their ends,
  /// because some sentences begin when others end. With a smaller share, steps have fewer rows: 0.5
  /// instead of 0.6 saved 1.5 of 8 GiB and cost 3 % of the speed (docs/benchmarks-history.md,
  /// "Moonshots that are missed").
  double in_use = 0.6;
  /// At least 1/rows_share of the sentences in flight take part in a step, while the others wait
  /// for pages. If pages are too few for that, the sentences that began last are begun again later,
  /// and what was computed of them is lost. tests/idle_rows_test.cpp counts such rows.
  std::int64_t rows_share = 8;

  /// Returns the number of tokens that fit into the unused part of a sentence's last page, on
  /// average.
  double unused_tokens() const { return static_cast<double>(page_tokens) / 2; }
  /// Returns the budget of --batch-tokens auto in source tokens, before the device's memory bounds
  /// it (Caches::affordable_tokens).
  std::int64_t batch_tokens(std::int64_t beams) const {
    return std::clamp<std::int64_t>(batch_rows / beams, 1, batch_sentences) * usual_source_tokens;
  }
};

/// Returns the policy of a GPU, or of the CPU with this number of threads. A run gets its policy
/// only here.
inline Policy policy_for(bool gpu, int threads) {
  Policy policy;
  if (gpu) {
    // More sentences would mostly take memory, for the caches of their sources. In greedy search
    // 262,144 source tokens, which are 8192 sentences of the usual length, were only 1 % faster
    // than 196,608 (docs/benchmarks-history.md, "Moonshots that are missed").
    policy.batch_sentences = 8192;
    policy.batch_rows = policy.most_rows;
    policy.window = 100000;
  } else {
    // Each thread has rows enough for two parts (engine/cpu/parts.cpp), of 32 rows in greedy search
    // and of 64 at beam 4, as was fastest with 16 threads (docs/benchmarks.md, "The CPU"). More
    // sentences than are sorted together would be read too late.
    constexpr std::int64_t kThreadRows = 128, kThreadSentences = 64;
    policy.batch_rows = std::clamp(kThreadRows * threads, policy.batch_rows, policy.most_rows);
    policy.batch_sentences =
        std::clamp(kThreadSentences * threads, policy.batch_sentences, policy.window);
  }
  return policy;
}

}  // namespace xlate
