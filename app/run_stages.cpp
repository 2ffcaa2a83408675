// Computes the shares of the stages from the times that a run has counted.
#include "app/run_stages.h"

#include <algorithm>
#include <utility>

#include "app/detokenizer_threads.h"

namespace xlate {
namespace {

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double seconds(const std::atomic<std::int64_t>& nanoseconds) {
  return static_cast<double>(nanoseconds.load()) * 1e-9;
}

// Returns how long a model that was ready waited for the first line.
double first_wait(const RunRecord& run, double process_seconds) {
  if (run.model_ready == Clock::time_point{}) return 0;
  if (run.first_line_read == Clock::time_point{})
    return std::max(0.0, process_seconds - seconds(run.model_ready - run.process_start));
  return std::max(0.0, seconds(run.first_line_read - run.model_ready));
}

}  // namespace

RunStages stages_of(const RunRecord& run, double process_seconds) {
  if (process_seconds <= 0) return {};
  const auto share = [&](double seconds) {
    return std::clamp(seconds / process_seconds, 0.0, 1.0);
  };
  const Counters& counters = run.counters;
  const WorkSeconds& work = run.statistics.seconds;
  // With --line-buffered a single line is on its way, so that at most one thread makes text.
  const int text_threads =
      !run.options || run.options->line_buffered ? 1 : DetokenizerThreads::threads_of(*run.options);
  return {.load = share(run.load_seconds),
          .input = share(seconds(counters.waiting_nanoseconds) + first_wait(run, process_seconds)),
          .tokenize = share(seconds(counters.tokenizing_nanoseconds)),
          .device = share(work.busy >= 0 ? work.busy : work.encode + work.decode),
          .output = share(std::max(seconds(counters.write_nanoseconds),
                                   seconds(counters.detokenize_nanoseconds) / text_threads))};
}

const char* bound_of(const RunStages& stages) {
  const auto [share, name] =
      std::max({std::pair(stages.load, "load"),
                {stages.input, "input"},
                {stages.tokenize, "tokenize"},
                {stages.device, "device"},
                {stages.output, "output"}},
               [](const auto& a, const auto& b) { return a.first < b.first; });
  return share > 0 ? name : nullptr;
}

}  // namespace xlate
