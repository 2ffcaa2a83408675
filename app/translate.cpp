// Connects the stages of the pipeline: reading, tokenizing, making text and writing on threads of
// their own, and decoding on the thread that calls translate().
#include "app/translate.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <future>
#include <thread>
#include <vector>

#include "app/annotations.h"
#include "app/detokenizer_threads.h"
#include "app/forced_lengths.h"
#include "app/interrupt.h"
#include "app/json_lines.h"
#include "app/line_parts.h"
#include "app/line_reader.h"
#include "app/ordered_output.h"
#include "app/output_file.h"
#include "app/resolve_options.h"
#include "app/scoring.h"
#include "app/suppress.h"
#include "app/windows.h"
#include "engine/caches.h"
#include "engine/threads.h"
#include "models/load.h"
#include "models/transformer.h"

namespace xlate {
namespace {

void check_cpu_precision(const Options& options) {
  if (options.precision == Precision::kFloat16 || options.precision == Precision::kBFloat16) {
    throw UsageError(fmt::format("--precision: {}, expected fp32 or auto on the CPU",
                                 name_of(options.precision)));
  }
}

// Returns the step at which a GPU pretends to fail, which is a hook for tests, or 0 for none.
std::int64_t fail_at_step() {
  const char* step = std::getenv("XLATE_TEST_CUDA_ERROR_AT_STEP");
  return step ? std::atoll(step) : 0;
}

// Opens the backend of the device that --device names. With auto, it is the first GPU, or the CPU
// if that GPU cannot be used, which a note then says.
std::unique_ptr<Backend> open_backend(const Options& options, const NetworkDescription& network,
                                      Console& console) {
  BackendOptions wanted{
      .cuda = options.device != "cpu",
      .device = options.device.starts_with("cuda:") ? std::stoi(options.device.substr(5)) : 0,
      .precision = effective_precision(options.precision, network, options.device != "cpu"),
      .threads = options.threads,
      .memory_share = options.gpu_memory_share,
      .memory_bytes = options.gpu_memory_bytes,
      .one_at_a_time = options.line_buffered,
      .fail_at_step = fail_at_step()};
  if (options.device != "auto") {
    if (!wanted.cuda) check_cpu_precision(options);
    try {
      return make_backend(wanted);
    } catch (const Error& error) {
      fail("--device {}: {}", options.device, error.what());
    }
  }
  try {
    return make_backend(wanted);
  } catch (const Error& error) {
    check_cpu_precision(options);
    console.note(fmt::format("running on the CPU: {}", error.what()));
  }
  wanted.cuda = false;
  return make_backend(wanted);
}

// Refuses text for a model whose tokenizer xlate does not have: only ids and pieces are possible.
void check_formats(const Options& options, const Tokenizer& tokenizer) {
  for (const auto& [option, format, needed] :
       {std::tuple{"--input-format", options.input_format, true},
        // Scores are no text of the model.
        {"--output-format", options.output_format, !scores_lines(options)}}) {
    if (needed && is_text(format) && !tokenizer.has_text())
      throw UsageError(fmt::format("{}: {}, expected ids or pieces: {} holds no tokenizer for text",
                                   option, name_of(format), options.model));
  }
  if (options.template_text && !tokenizer.has_special_tokens()) {
    throw UsageError(fmt::format("--template: cannot be used: the tokenizer of {} cannot read one",
                                 options.model));
  }
}

// Returns whether texts of the target's side are made ids.
bool reads_targets(const Options& options) {
  return suppresses(options) || options.score_pairs || !options.target_prefix.empty();
}

ModelFacts facts_of(const ModelFile& file) {
  return {.path = file.name(),
          .architecture = file.description().architecture,
          .hash = file.hash(),
          .parameters = file.parameters(),
          .bytes = file.bytes()};
}

std::string progress_text(OrderedOutput& output, const LineReader& reader, const Counters& counters,
                          Clock::time_point start) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const auto lines = output.written().lines;
  std::string text = fmt::format("{} lines", lines);
  if (const auto total = reader.bytes_total(), read = counters.lines_in.load();
      total > 0 && read > 0) {
    const double share = static_cast<double>(lines) / static_cast<double>(read) *
                         static_cast<double>(reader.bytes_read()) / static_cast<double>(total);
    text += fmt::format(", {:.0f} %", 100 * share);
    if (share > 0) text += fmt::format(", {:.0f} s left", seconds / share - seconds);
  }
  return text +
         fmt::format(", {:.0f} tokens/s",
                     seconds > 0 ? static_cast<double>(counters.target_tokens) / seconds : 0.0);
}

[[noreturn]] void fail_for_room(const Options& options, const char* cause) {
  const std::string limits = options.max_new_tokens
                                 ? fmt::format("{} new tokens (--max-new-tokens {})",
                                               options.most_new_tokens, *options.max_new_tokens)
                                 : fmt::format("--max-length {}, --max-length-factor {}",
                                               *options.max_length, *options.max_length_factor);
  fail("no room for {}, --max-source-length {}, --beam-size {} and --batch-tokens {}: {}", limits,
       *options.max_source_length, *options.beam_size, options.batch_tokens, cause);
}

std::unique_ptr<Runner> make_runner(const RunRecord& record, const ModelDescription& description,
                                    Backend& backend, SequenceModel& model, bool forced) {
  const Options& options = *record.options;
  const SearchRules rules = rules_of(options, description);
  const bool prompts = options.max_new_tokens.has_value();
  const RunnerOptions wanted{
      .rules = forced ? ending_at_limits(rules) : rules,
      .policy = *record.policy,
      // With a budget of one token there is one slot, and little to copy to the device.
      .batch_tokens = options.line_buffered ? 1 : options.batch_tokens,
      .longest_source = *options.max_source_length,
      .max_length = prompts ? options.most_new_tokens : *options.max_length,
      .max_length_factor = options.max_length_factor.value_or(0),
      .context = options.context,
      // A forced first token belongs to a prefix.
      .longest_prefix = options.longest_prefix > 0 ? options.longest_prefix + 1 : 0};
  try {
    return std::make_unique<Runner>(backend, model, wanted);
  } catch (const Error& error) {
    fail_for_room(options, error.what());
  }
}

// Returns what a user can do about a line without a continuation, as the end of a message.
std::string way_out(const NoContinuation& error, const RunRecord& record) {
  if (record.options->precision == Precision::kFloat16)
    return "; --precision bf16 or fp32 can hold larger numbers";
  return error.not_finite ? "; the model itself gives no finite numbers" : "";
}

std::unique_ptr<Annotator> make_annotator(const LoadedNetwork& loaded, Backend& backend,
                                          const RunRecord& record,
                                          const ModelDescription& description,
                                          DetokenizerThreads& text) {
  try {
    return std::make_unique<Annotator>(
        loaded, backend, *record.options, *record.policy, description,
        [&](std::vector<AnnotatedLine> lines) { text.put(std::move(lines)); });
  } catch (const Error& error) {
    fail_for_room(*record.options, error.what());
  }
}

// Decodes until the input ends, and annotates what was decoded if there is an annotator.
void run(Runner& runner, SentenceInput& source, Annotator* annotator, DetokenizerThreads& text) {
  if (!annotator) {
    runner.run(
        source, [&](std::vector<Decoded> decoded) { text.put(std::move(decoded)); }, stop_flag());
  } else {
    annotator->run(runner, source, stop_flag());
  }
}

// Loads the model while other threads read and tokenize the first lines. Decodes until the input
// ends.
void decode(RunRecord& record, const ModelFile& file, Backend& backend, WindowInput& source,
            DetokenizerThreads& text) {
  Options& options = *record.options;
  const Clock::time_point start = Clock::now();
  const LoadedNetwork loaded = load_network(file, backend);
  Transformer model(loaded, backend);
  std::unique_ptr<Annotator> annotator;
  // It allocates its memory first, because the caches take what is left.
  if (annotates(options))
    annotator = make_annotator(loaded, backend, record, file.description(), text);
  if (!options.batch_tokens_given) {
    const CacheShape shape = model.cache_shape();
    options.batch_tokens =
        std::min(options.batch_tokens,
                 Caches::affordable_tokens(backend, *record.policy, shape, *options.beam_size));
  }
  std::unique_ptr<Runner> runner;
  const auto keep_figures = [&] {
    if (!runner) return;
    record.statistics = runner->statistics();
    record.memory = backend.memory();
    record.paths = backend.paths();
  };
  try {
    const std::vector<std::int32_t> lengths = forced_lengths();
    runner = make_runner(record, file.description(), backend, model, !lengths.empty());
    record.model_ready = Clock::now();
    record.load_seconds += std::chrono::duration<double>(record.model_ready - start).count();
    ForcedLengths forced(source, lengths);
    run(*runner, lengths.empty() ? static_cast<SentenceInput&>(source) : forced, annotator.get(),
        text);
  } catch (const std::bad_alloc&) {
    keep_figures();
    fail_for_room(options, ("out of memory" + memory_limits()).c_str());
  } catch (const NoContinuation& error) {
    keep_figures();
    throw Error(error.what() + way_out(error, record));
  } catch (...) {
    keep_figures();
    throw;
  }
  keep_figures();
}

// Says that the checkpoint draws tokens by default, unless this run does so, or generates nothing.
void note_sampling(const ModelFile& file, const Options& options, Console& console) {
  if (!file.description().generation.do_sample || scores_lines(options) || options.sample) return;
  console.note(
      fmt::format("{}: its checkpoint draws tokens at random by default (do_sample: true); this "
                  "run does not, it searches with --beam-size {} (--sample draws)",
                  options.model, *options.beam_size));
}

// Runs all stages. Everything that is decoded is written, also if an error ends the run, which is
// thrown then. Returns false if a signal has ended it. `prefixes` gives the lines of
// --target-prefix, or is null.
bool run_pipeline(RunRecord& record, const ModelFile& file, Backend& backend,
                  const Tokenizer& tokenizer, LineReader& reader, LineReader* prefixes,
                  OutputFile& output_file, Console& console, Clock::time_point start) {
  const Options& options = *record.options;
  FirstError error(reader);
  OrderedOutput output(output_file, record,
                       [&](std::exception_ptr failure) { error.set(failure); });
  LineFields fields;
  LineParts parts(options);
  LineWords words;
  const LineTables tables{fields, parts, words};
  WindowInput source(options, reader, tokenizer, output, tables, record, console, prefixes);
  DetokenizerThreads text(options, tokenizer, tables, output, record.counters, error);
  console.start_progress([&] { return progress_text(output, reader, record.counters, start); });
  try {
    if (scores_lines(options))
      score_lines(record, file, backend, source, fields, output);
    else
      decode(record, file, backend, source, text);
  } catch (...) {
    error.set(std::current_exception());
  }
  // The stages end in the order of the pipeline, so that everything decoded is still written.
  source.stop();
  text.finish();
  output.finish();
  console.stop_progress();
  error.rethrow();
  if (signal_received()) return false;
  if (const auto input_error = source.input_error()) std::rethrow_exception(input_error);
  return true;
}

}  // namespace

void translate(RunRecord& record, Console& console) {
  Options& options = *record.options;
  const Clock::time_point start = Clock::now();
  share_heap_where_memory_is_short(options.threads);
  const ModelFile file = ModelFile::open(options.model);
  record.model = facts_of(file);
  resolve(options, file.description());
  note_sampling(file, options, console);
  LineReader reader(options.input);
  std::optional<LineReader> prefixes;
  if (!options.target_prefix.empty()) prefixes.emplace(std::vector{options.target_prefix});
  OutputFile output_file(options.output);
  if (options.device == "cpu" && options.gpu_memory_given)
    throw UsageError("--gpu-memory: the run is on the CPU (--device cpu)");
  std::packaged_task<Tokenizer()> loading(
      [&] { return load_tokenizer(file, reads_targets(options)); });
  auto tokenizer_to_come = loading.get_future();
  std::jthread beside;
  // The tokenizer is loaded while the device is opened, since both take a while. Under a limit on
  // memory it is loaded afterwards, so that the device gets its memory first.
  const bool limited = memory_is_limited();
  if (!limited) beside = start_thread("loading the tokenizer", std::move(loading));
  const NetworkDescription& network = file.description().network;
  const auto backend = open_backend(options, network, console);
  if (limited) loading();
  record.device = backend->info();
  if (!record.device->slower.empty()) console.note(record.device->slower);
  const bool gpu = record.device->kind == "cuda";
  record.policy = policy_for(gpu);
  resolve_device(options, network, *record.policy, gpu);
  const Tokenizer tokenizer = tokenizer_to_come.get();
  check_formats(options, tokenizer);
  resolve_suppressed(options, file.description(), tokenizer);
  record.load_seconds = std::chrono::duration<double>(Clock::now() - start).count();

  if (!run_pipeline(record, file, *backend, tokenizer, reader, prefixes ? &*prefixes : nullptr,
                    output_file, console, start))
    return;
  output_file.finish();
  record.complete = true;
}

}  // namespace xlate
