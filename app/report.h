// Records what a run does, and makes the JSON report of it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/latency.h"
#include "app/options.h"
#include "engine/backend.h"
#include "engine/policy.h"
#include "engine/runner.h"

namespace xlate {

using Clock = std::chrono::steady_clock;

/// Holds what the stages of the pipeline count on their threads. Times are sums over all threads
/// that do the same work.
struct Counters {
  std::atomic<std::int64_t> lines_in{0}, lines_out{0}, empty{0}, truncated{0}, skipped{0},
      invalid_utf8{0}, source_words{0}, target_tokens{0}, split{0};
  // They count the source tokens of the sentences that have been read, and of those that are done.
  std::atomic<std::int64_t> source_tokens_read{0}, source_tokens_done{0};
  // This share of the input is made up of the lines whose sentences have been read. It is −1 where
  // the size of the input is not known.
  std::atomic<double> share_read{-1};
  // It counts the parts of lines that hit the limit after another part of their line.
  std::atomic<std::int64_t> hit_limit_again{0};
  std::atomic<std::int64_t> tokenize_nanoseconds{0}, detokenize_nanoseconds{0},
      waiting_nanoseconds{0}, write_nanoseconds{0};
  // It counts the time in which any thread tokenized, once.
  std::atomic<std::int64_t> tokenizing_nanoseconds{0};
};

/// Holds what the report says of the model.
struct ModelFacts {
  std::string path, architecture;
  std::uint64_t hash = 0;
  std::int64_t parameters = 0, bytes = 0;
};

/// Holds everything of which the report is made. What a failed run has not reached stays empty.
struct RunRecord {
  std::optional<Options> options;
  std::optional<ModelFacts> model;
  std::optional<DeviceInfo> device;
  std::optional<Policy> policy;
  DeviceMemory memory;
  // These are parts of a GPU's memory. They are −1 where there is none, or nothing was decoded.
  std::int64_t weight_bytes = -1, cache_bytes = -1;
  std::map<std::string, std::string> paths;  // This is what Backend::paths() returns.
  Counters counters;
  RunnerStatistics statistics;
  // They count sentences that were begun again because the memory had run out, and those that were
  // decoded once more in float32.
  std::int64_t begun_again = 0, overflows = 0;
  // It counts how often the budget of tokens was halved because the memory was too small.
  std::int64_t halvings = 0;
  Latency latency;  // It counts each line, with --line-buffered alone.
  Clock::time_point process_start;
  // It is the sum over all lines that were scored, with --score-text and --score-pairs alone.
  std::optional<double> log_probability;
  // With --resume, the output of so many lines is from earlier runs. The counters leave them out.
  std::int64_t resumed_lines = 0;
  double load_seconds = 0;
  Clock::time_point model_ready{}, first_line_read{}, first_output{}, last_output{};
  bool complete = false;  // It becomes true when the output has its name: a signal comes too late.
  std::string status = "ok", error;
};

/// Returns when this process was started, to the precision of the system's clock tick (10 ms).
Clock::time_point process_start();

/// Returns the report as JSON text. docs/report.md lists its fields. Fields that only a GPU has are
/// null on the CPU.
std::string report_text(const RunRecord&);

/// Returns the effective values of all options as a JSON object. Both texts come from the same
/// list, so that an option which the report has is compared by --resume, too.
std::string options_text(const RunRecord&);

/// Throws Error if the report could not be written to `path`. Leaves an empty file there, so that
/// nobody takes the report of an earlier run for that of a run that is killed. Pipes and what is
/// open already stay as they are.
void clear_report(const std::string& path);

/// Writes the report to a file, or to stderr for "-". Throws Error if that fails.
void write_report(const std::string& path, const RunRecord&);

}  // namespace xlate
