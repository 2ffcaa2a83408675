// What a run did, counted while it runs, and the JSON report made of it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/options.h"
#include "engine/backend.h"
#include "engine/policy.h"
#include "engine/runner.h"

namespace xlate {

using Clock = std::chrono::steady_clock;

/// Counted by the stages of the pipeline, on their threads.
struct Counters {
  std::atomic<std::int64_t> lines_in{0}, lines_out{0}, empty{0}, truncated{0}, skipped{0},
      invalid_utf8{0}, source_words{0}, target_tokens{0};
  std::atomic<std::int64_t> tokenize_nanoseconds{0}, detokenize_nanoseconds{0},
      waiting_nanoseconds{0};
};

/// What the report says of the model.
struct ModelFacts {
  std::string path, architecture;
  std::uint64_t hash = 0;
  std::int64_t parameters = 0, bytes = 0;
};

/// Latencies in classes of one percent: percentiles of any number of lines in little memory.
class Latency {
 public:
  void add(double milliseconds);
  /// Nearest rank: the upper end of the class that holds the value which at least this share of all
  /// does not exceed. 0 if there is none.
  double percentile(double share) const;
  double max() const { return max_; }

 private:
  std::map<int, std::int64_t> classes_;
  std::int64_t count_ = 0;
  double max_ = 0;
};

/// All that the report is made of; what a failed run has not reached stays empty.
struct RunRecord {
  std::optional<Options> options;
  std::optional<ModelFacts> model;
  std::optional<DeviceInfo> device;
  std::optional<Policy> policy;
  DeviceMemory memory;
  std::map<std::string, std::string> paths;  // Backend::paths()
  Counters counters;
  RunnerStatistics statistics;
  Latency latency;                  // with --line-buffered, of each line
  Clock::time_point process_start;  // of the process
  double load_seconds = 0;
  Clock::time_point model_ready{}, first_line_read{}, first_output{}, last_output{};
  bool complete = false;  // the output has its name: a signal comes too late
  std::string status = "ok", error;
};

/// When this process was started, to the clock tick of the system (10 ms).
Clock::time_point process_start();

/// The report as JSON text. docs/report.md lists its fields; what only a GPU has is null.
std::string report_text(const RunRecord&);

/// Throws Error where a report could not be written there. An existing one is left as it is.
void check_report_path(const std::string& path);

/// Writes the report to a file, or to stderr for "-". Throws Error where it cannot be written.
void write_report(const std::string& path, const RunRecord&);

}  // namespace xlate
