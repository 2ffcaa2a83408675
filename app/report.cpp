// Makes the JSON report from the record of a run, and writes it.
#include "app/report.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "app/descriptors.h"
#include "app/interrupt.h"
#include "app/output_file.h"
#include "app/run_stages.h"
#include "app/version.h"
#include "engine/error.h"
#include "engine/limits.h"

namespace xlate {
namespace {

using json = nlohmann::ordered_json;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return to <= from || from == Clock::time_point{}
             ? 0.0
             : std::chrono::duration<double>(to - from).count();
}

double rate(std::int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

double nanoseconds(const std::atomic<std::int64_t>& value) {
  return static_cast<double>(value.load()) * 1e-9;
}

json model_of(const RunRecord& run) {
  if (!run.model) return nullptr;
  return {{"path", run.model->path},
          {"hash", fmt::format("{:016x}", run.model->hash)},
          {"architecture", run.model->architecture},
          {"parameters", run.model->parameters},
          {"bytes", run.model->bytes}};
}

json device_of(const RunRecord& run) {
  if (!run.device) return nullptr;
  const DeviceInfo& device = *run.device;
  const bool gpu = device.kind == "cuda";
  const auto of_gpu = [&](const std::string& text) { return gpu ? json(text) : json(nullptr); };
  return {
      {"name", device.name},
      {"compute_capability", of_gpu(device.compute_capability)},
      {"driver", of_gpu(device.driver)},
      {"cuda", of_gpu(device.cuda)},
      {"cpu", fmt::format("{}, {}, {}", device.processor, device.instruction_set, device.library)},
      {"threads", device.threads}};
}

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json busy_or_null(double value) { return value < 0 ? json(nullptr) : json(value); }

json bytes_or_null(std::int64_t bytes) { return bytes < 0 ? json(nullptr) : json(bytes); }

json options_of(const RunRecord& run) {
  if (!run.options) return nullptr;
  const Options& options = *run.options;
  return {{"model", options.model},
          {"input", options.input},
          {"output", options.output.empty() ? "-" : options.output},
          {"resume", options.resume},
          {"device", options.device},
          {"input_format", name_of(options.input_format)},
          {"output_format", name_of(options.output_format)},
          {"text_key", or_null(options.text_key)},
          {"precision", name_of(options.precision)},
          {"gpu_memory", options.gpu_memory_bytes > 0 ? json(options.gpu_memory_bytes)
                                                      : json(options.gpu_memory_share)},
          {"beam_size", or_null(options.beam_size)},
          {"beam_groups", or_null(options.beam_groups)},
          {"diversity", or_null(options.diversity)},
          {"length_penalty", or_null(options.length_penalty)},
          {"early_stopping",
           options.early_stopping ? json(name_of(*options.early_stopping)) : json(nullptr)},
          {"min_length", or_null(options.min_length)},
          {"no_repeat_ngram", or_null(options.no_repeat_ngram)},
          {"repetition_penalty", or_null(options.repetition_penalty)},
          {"suppress", options.suppress},
          {"suppress_unk", options.suppress_unk},
          {"max_length", or_null(options.max_length)},
          {"max_length_factor", or_null(options.max_length_factor)},
          {"max_new_tokens", or_null(options.max_new_tokens)},
          {"max_source_length", or_null(options.max_source_length)},
          {"long_lines", name_of(options.long_lines)},
          {"split_sentences", options.split_sentences},
          {"markup", name_of(options.markup)},
          {"source_lang", or_null(options.source_lang)},
          {"target_lang", or_null(options.target_lang)},
          {"lang_column", options.lang_column},
          {"template", or_null(options.template_text)},
          {"template_file", options.template_file},
          {"chat", options.chat},
          {"score_text", options.score_text},
          {"score_pairs", options.score_pairs},
          {"echo", options.echo},
          {"stop", options.stop},
          {"newline", options.newline.value_or(" ")},
          {"scores", options.scores},
          {"n_best", options.n_best},
          {"target_prefix", options.target_prefix},
          {"sample", options.sample},
          {"temperature", or_null(options.temperature)},
          {"top_k", or_null(options.top_k)},
          {"top_p", or_null(options.top_p)},
          {"seed", or_null(options.seed)},
          {"num_samples", or_null(options.num_samples)},
          {"alignments", options.alignments},
          {"alignment_layer", or_null(options.alignment_layer)},
          {"alignment_heads", options.alignment_heads},
          {"alignment_words", options.alignment_words},
          {"token_scores", options.token_scores},
          {"batch_tokens", options.batch_tokens},
          {"window", options.window},
          {"threads", options.threads},
          {"line_buffered", options.line_buffered},
          {"report", options.report},
          {"progress", name_of(options.progress)},
          {"quiet", options.quiet}};
}

json policy_of(const RunRecord& run) {
  if (!run.policy) return nullptr;
  const Policy& policy = *run.policy;
  return {{"most_rows", policy.most_rows},
          {"batch_sentences", policy.batch_sentences},
          {"batch_rows", policy.batch_rows},
          {"usual_source_tokens", policy.usual_source_tokens},
          {"tokens_per_slot", policy.tokens_per_slot},
          {"state_share", policy.state_share},
          {"encoder_tokens", policy.encoder_tokens},
          {"least_pass_tokens", policy.least_pass_tokens},
          {"refill_share", policy.refill_share},
          {"steps_at_once", policy.steps_at_once},
          {"window", policy.window},
          {"page_tokens", policy.page_tokens},
          {"expected_factor", policy.expected_factor},
          {"expected_extra", policy.expected_extra},
          {"expected_continuation", policy.expected_continuation},
          {"first_sentences", policy.first_sentences},
          {"most_sentences", policy.most_sentences},
          {"expected_source", policy.expected_source},
          {"in_use", policy.in_use},
          {"rows_share", policy.rows_share}};
}

json lines_of(const RunRecord& run) {
  const Counters& counters = run.counters;
  return {{"in", counters.lines_in.load()},
          {"out", counters.lines_out.load()},
          {"empty", counters.empty.load()},
          {"truncated", counters.truncated.load()},
          {"split", counters.split.load()},
          {"skipped", counters.skipped.load()},
          {"resumed", run.resumed_lines},
          {"invalid_utf8", counters.invalid_utf8.load()},
          {"hit_length_limit", run.statistics.hit_limit - counters.hit_limit_again},
          {"retried", run.statistics.preempted + run.begun_again + run.overflows}};
}

// Says why sentences were begun again.
json retries_of(const RunRecord& run) {
  return {{"pages", run.statistics.preempted},
          {"memory", run.begun_again},
          {"overflow", run.overflows},
          {"halved_budgets", run.halvings}};
}

json counts_of(const RunRecord& run) {
  const RunnerStatistics& statistics = run.statistics;
  return {{"source_words", run.counters.source_words.load()},
          {"source_tokens", statistics.source_tokens},
          {"target_tokens", statistics.target_tokens},
          {"target_tokens_without_end", statistics.target_tokens_without_end},
          {"decoding_steps", statistics.steps},
          {"decoding_rows", statistics.rows},
          {"decoding_rows_useful", statistics.rows_useful}};
}

// `translate` and `process` are the two times that rates are taken over, in seconds.
json seconds_of(const RunRecord& run, double translate, double process) {
  const WorkSeconds& work = run.statistics.seconds;
  return {{"load", run.load_seconds},
          {"first_output", seconds_between(run.process_start, run.first_output)},
          {"tokenize", nanoseconds(run.counters.tokenize_nanoseconds)},
          {"detokenize", nanoseconds(run.counters.detokenize_nanoseconds)},
          {"encode", work.encode},
          {"decode", work.decode},
          {"device_busy", busy_or_null(work.busy)},
          {"waiting", nanoseconds(run.counters.waiting_nanoseconds)},
          {"write", nanoseconds(run.counters.write_nanoseconds)},
          {"translate", translate},
          {"process", process}};
}

json rates_of(const RunRecord& run, double translate, double process) {
  const std::int64_t tokens = run.statistics.target_tokens;
  return {{"target_tokens_per_second", rate(tokens, translate)},
          {"target_tokens_per_second_process", rate(tokens, process)},
          {"source_words_per_second", rate(run.counters.source_words, process)},
          {"sentences_per_second", rate(run.counters.lines_out, process)}};
}

json shares_of(const RunnerStatistics& statistics) {
  const WorkSeconds& work = statistics.seconds;
  // Source sentences are packed, so there is no padding to count.
  return {
      {"padding", 0.0},
      {"rows_idle",
       statistics.rows > 0 ? 1.0 - share(statistics.rows_useful, statistics.rows) : 0.0},
      {"device_busy", busy_or_null(work.busy >= 0 && work.span > 0 ? work.busy / work.span : -1)}};
}

json stages_json(const RunStages& stages) {
  return {{"load", stages.load},
          {"input", stages.input},
          {"tokenize", stages.tokenize},
          {"device", stages.device},
          {"output", stages.output}};
}

json latency_of(const Latency& latency) {
  json histogram = json::array();
  for (const Latency::Bar& bar : latency.histogram())
    histogram.push_back({{"from", bar.from}, {"to", bar.to}, {"lines", bar.lines}});
  return {{"p50", latency.percentile(0.5)},
          {"p90", latency.percentile(0.9)},
          {"p99", latency.percentile(0.99)},
          {"max", latency.max()},
          {"histogram", histogram}};
}

// Returns the perplexity of all tokens that were scored, or null if there are none.
json perplexity_of(const RunRecord& run) {
  const std::int64_t tokens = run.counters.target_tokens;
  if (tokens == 0) return nullptr;
  return std::exp(-*run.log_probability / static_cast<double>(tokens));
}

json buckets_of(const RunnerStatistics& statistics) {
  json buckets = json::array();
  for (std::size_t i = 0; i < statistics.buckets.size(); ++i) {
    const auto& bucket = statistics.buckets[i];
    if (bucket.lines == 0) continue;
    const auto first = static_cast<std::int64_t>(i) * RunnerStatistics::kBucketTokens + 1;
    buckets.push_back({{"source_length",
                        fmt::format("{}-{}", first, first + RunnerStatistics::kBucketTokens - 1)},
                       {"lines", bucket.lines},
                       {"source_tokens", bucket.source_tokens},
                       {"target_tokens", bucket.target_tokens},
                       {"row_steps", bucket.row_steps}});
  }
  return buckets;
}

// Opens the file of the report for writing. Returns null, with errno, if that fails. Waits a few
// seconds, or until a signal comes, for the reader of a named pipe. Without a reader, opening the
// pipe would never return.
std::FILE* open_report(const std::string& path) {
  constexpr int kAttempts = 50;
  constexpr std::chrono::milliseconds kPause{100};
  struct stat status {};
  if (stat(path.c_str(), &status) != 0 || !S_ISFIFO(status.st_mode))
    return std::fopen(path.c_str(), "w");
  const int signal = signal_received();
  int pipe = -1;
  for (int attempt = 1; (pipe = open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0;
       ++attempt) {
    if (errno != ENXIO) return nullptr;
    if (attempt == kAttempts || signal_received() != signal)
      fail("{}: cannot be written: nobody reads from this pipe", path);
    std::this_thread::sleep_for(kPause);
  }
  fcntl(pipe, F_SETFL, 0);  // Writing waits for the reader to make room.
  return fdopen(pipe, "w");
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace

Clock::time_point process_start() {
  const Clock::time_point now = Clock::now();
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');
  timespec since_boot{};
  if (name_end == std::string::npos || clock_gettime(CLOCK_BOOTTIME, &since_boot) != 0) return now;
  std::istringstream fields(text.substr(name_end + 2));
  std::string field;
  // Field 22 is the start of the process, in clock ticks since the system booted.
  for (int i = 3; i <= 22 && fields >> field; ++i) {
  }
  const double started =
      std::strtod(field.c_str(), nullptr) / static_cast<double>(sysconf(_SC_CLK_TCK));
  const double age = static_cast<double>(since_boot.tv_sec) +
                     static_cast<double>(since_boot.tv_nsec) * 1e-9 - started;
  return age >= 0
             ? now - std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(age))
             : now;
}

std::string options_text(const RunRecord& run) {
  return options_of(run).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string report_text(const RunRecord& run) {
  const RunnerStatistics& statistics = run.statistics;
  const double process = seconds_between(run.process_start, Clock::now());
  const double translate =
      seconds_between(std::max(run.model_ready, run.first_line_read), run.last_output);
  json report;
  report["version"] = kVersion;
  report["status"] = run.status;
  if (run.status != "ok") report["error"] = run.error;
  report["model"] = model_of(run);
  report["device"] = device_of(run);
  report["precision"] =
      run.options && run.device ? json(name_of(run.options->precision)) : json(nullptr);
  report["paths"] = run.device ? json(run.paths) : json(nullptr);
  report["options"] = options_of(run);
  report["policy"] = policy_of(run);
  report["lines"] = lines_of(run);
  report["retries"] = retries_of(run);
  report["counts"] = counts_of(run);
  report["seconds"] = seconds_of(run, translate, process);
  report["rates"] = rates_of(run, translate, process);
  report["shares"] = shares_of(statistics);
  const RunStages stages = stages_of(run, process);
  const char* bound = bound_of(stages);
  report["bound"] = bound ? json(bound) : json(nullptr);
  report["stages"] = stages_json(stages);
  if (run.log_probability) {
    report["log_probability"] = *run.log_probability;
    report["perplexity"] = perplexity_of(run);
  }
  report["batches"] = statistics.batches;
  report["buckets"] = buckets_of(statistics);
  report["memory"] = {{"device_peak_bytes", bytes_or_null(run.memory.peak_bytes)},
                      {"device_weight_bytes", bytes_or_null(run.weight_bytes)},
                      {"device_cache_bytes", bytes_or_null(run.cache_bytes)},
                      {"device_context_bytes", bytes_or_null(run.memory.context_bytes)},
                      {"host_peak_bytes", peak_resident_bytes()}};
  if (run.options && run.options->line_buffered) report["latency_ms"] = latency_of(run.latency);
  return report.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

void clear_report(const std::string& path) {
  if (path.empty() || path == "-") return;
  if (const std::optional<int> descriptor = named_descriptor(path)) {
    const int flags = fcntl(*descriptor, F_GETFL);
    if (flags < 0) fail("{}: cannot be written: {}", path, std::strerror(errno));
    if ((flags & O_ACCMODE) == O_RDONLY)
      fail("{}: cannot be written: it is open for reading only", path);
    return;
  }
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) {
    // A pipe is not opened, since its reader would take the closing for the end of the report.
    if (access(path.c_str(), W_OK) != 0)
      fail("{}: cannot be written: {}", path, std::strerror(errno));
    return;
  }
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) fail("{}: cannot be written: {}", path, std::strerror(errno));
  std::fclose(file);
}

void write_report(const std::string& path, const RunRecord& run) {
  const std::string text = report_text(run);
  if (const std::optional<int> descriptor = named_descriptor(path)) {
    if (write_all(*descriptor, text)) return;
    if (errno == EPIPE && *descriptor == STDOUT_FILENO) throw ClosedPipe();
    fail("{}: cannot be written: {}", path, write_error(errno));
  }
  std::FILE* file = path == "-" ? stderr : open_report(path);
  if (!file) fail("{}: cannot be written: {}", path, std::strerror(errno));
  const bool written =
      std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
  const int error = errno;
  const bool closed = file == stderr || std::fclose(file) == 0;
  if (!written || !closed)
    fail("{}: cannot be written: {}", path, write_error(written ? errno : error));
}

}  // namespace xlate
