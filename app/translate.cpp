// Connects the stages of the pipeline: reading, tokenizing, making text and writing on threads of
// their own, and decoding on the thread that calls translate().
#include "app/translate.h"

#include <algorithm>
#include <exception>
#include <vector>

#include "app/beside.h"
#include "app/decoding.h"
#include "app/detokenizer_threads.h"
#include "app/interrupt.h"
#include "app/json_lines.h"
#include "app/line_parts.h"
#include "app/line_reader.h"
#include "app/open_backend.h"
#include "app/ordered_output.h"
#include "app/output_file.h"
#include "app/overflow_retry.h"
#include "app/progress.h"
#include "app/resolve_options.h"
#include "app/resume.h"
#include "app/score_lines.h"
#include "app/scoring.h"
#include "app/suppress.h"
#include "app/windows.h"
#include "engine/limits.h"
#include "models/load.h"

namespace xlate {
namespace {

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

// Decodes a run, and sentences whose numbers overflow once more in float32.
void decode(RunRecord& record, const ModelFile& file, Beside<void>& verified, Backend& backend,
            WindowInput& source, const LineMarkup& markup, DetokenizerThreads& text) {
  Options& options = *record.options;
  const Clock::time_point start = Clock::now();
  const auto put = [&](std::vector<AnnotatedLine> lines) { text.put(std::move(lines)); };
  OverflowRetry retry(
      record, file, markup, [&] { return open_float32_beside(backend, options); }, put);
  DecodingOutput output{.put = put};
  if (overflow_is_redone(options)) {
    output.put = [&](std::vector<AnnotatedLine> lines) {
      const std::size_t count = lines.size();
      put(std::move(lines));
      retry.pass(count);
    };
    output.put_overflow = [&](Sentence sentence) { retry.add(std::move(sentence)); };
    output.flush = [&] { retry.flush(); };
  }
  std::optional<Decoding> decoding;
  const auto keep_figures = [&] {
    if (!decoding) return;
    options.batch_tokens = decoding->batch_tokens();
    record.statistics = decoding->statistics();
    record.begun_again = decoding->begun_again();
    record.halvings = decoding->halvings();
    record.overflows = retry.count();
    record.memory = backend.memory();
    if (record.memory.peak_bytes >= 0) {
      record.weight_bytes = decoding->weight_bytes();
      record.cache_bytes = decoding->cache_bytes();
    }
    record.paths = backend.paths();
    retry.add_figures(record);
  };
  try {
    decoding.emplace(record, file, backend, markup, output);
    verified.get();
    record.model_ready = Clock::now();
    record.load_seconds += std::chrono::duration<double>(record.model_ready - start).count();
    decoding->run(source);
  } catch (const std::bad_alloc&) {
    keep_figures();
    fail_for_room(options, no_room().what());
  } catch (const NoContinuation& error) {
    keep_figures();
    throw Error(error.what() +
                std::string(error.not_finite ? "; the model itself gives no finite numbers" : ""));
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

// Says that threads which wait for a processor make the run slow. A few more than processors do
// not.
void note_threads(const Options& options, Console& console) {
  constexpr int kManyPerProcessor = 8;
  if (options.threads <= kManyPerProcessor * options.processors) return;
  console.note(
      fmt::format("--threads {}: this process has {} processor{}, and so many threads make "
                  "it slow",
                  options.threads, options.processors, options.processors > 1 ? "s" : ""));
}

// Runs all stages. Everything that is decoded is written, also if an error ends the run, which is
// thrown then. Returns false if a signal or the loss of the model has ended it. `prefixes` gives
// the lines of --target-prefix, or is null.
bool run_pipeline(RunRecord& record, const ModelFile& file, Beside<void>& verified,
                  Backend& backend, const Tokenizer& tokenizer, LineReader& reader,
                  LineReader* prefixes, OutputFile& output_file, Console& console,
                  Clock::time_point start) {
  const Options& options = *record.options;
  FirstError error(reader);
  OrderedOutput output(output_file, record, console,
                       [&](std::exception_ptr failure) { error.set(failure); });
  LineFields fields;
  LineParts parts(options);
  LineWords words;
  LineMarkup markup;
  const LineTables tables{fields, parts, words, markup};
  const double first_share = std::max(0.0, reader.share_taken());
  WindowInput source(options, reader, tokenizer, output, tables, record, console, prefixes);
  DetokenizerThreads text(options, tokenizer, tables, output, record.counters, error);
  console.start_progress([&] {
    return progress_text(record.counters,
                         {.lines_written = output.written().lines,
                          .first_share = first_share,
                          .seconds = std::chrono::duration<double>(Clock::now() - start).count()});
  });
  try {
    if (scores_lines(options))
      score_lines(record, file, verified, backend, source, fields, output);
    else
      decode(record, file, verified, backend, source, markup, text);
  } catch (...) {
    error.set(std::current_exception());
  }
  // The stages end in the order of the pipeline, so that everything decoded is still written.
  source.stop();
  text.finish();
  output.finish();
  console.stop_progress();
  error.rethrow();
  if (signal_received() || model_lost()) return false;
  if (const auto input_error = source.input_error()) std::rethrow_exception(input_error);
  return true;
}

// Opens what a run needs and translates its input. `verified` comes when the hash of the file has
// been verified, and is waited for when the weights have been loaded.
void translate_input(RunRecord& record, const ModelFile& file, Beside<void>& verified,
                     bool memory_limited, Console& console, Clock::time_point start) {
  Options& options = *record.options;
  record.model = facts_of(file);
  resolve(options, file.description());
  check_resume(options);
  note_sampling(file, options, console);
  LineReader reader(options.input);
  std::optional<LineReader> prefixes;
  if (!options.target_prefix.empty()) prefixes.emplace(std::vector{options.target_prefix});
  OutputFile output_file(options.output,
                         options.resume ? PartialFile::Old::kKeep : PartialFile::Old::kRemove);
  if (options.device == "cpu" && options.gpu_memory_given)
    throw UsageError("--gpu-memory: the run is on the CPU (--device cpu)");
  // The tokenizer is loaded while the device is opened, since both take a while. Under a limit on
  // memory it is loaded afterwards, so that the device gets its memory first.
  Beside<Tokenizer> loaded(
      "loading the tokenizer", [&] { return load_tokenizer(file, reads_targets(options)); },
      memory_limited);
  const NetworkDescription& network = file.description().network;
  const auto backend = open_backend(options, network, console);
  record.device = backend->info();
  if (!record.device->slower.empty()) console.note(record.device->slower);
  note_threads(options, console);
  const bool gpu = record.device->kind == "cuda";
  record.policy = policy_for(gpu, options.threads);
  resolve_device(options, network, *record.policy, gpu);
  const Tokenizer tokenizer = loaded.get();
  check_formats(options, tokenizer);
  resolve_suppressed(options, file.description(), tokenizer);
  record.load_seconds = std::chrono::duration<double>(Clock::now() - start).count();

  LineReader* const prefix_lines = prefixes ? &*prefixes : nullptr;
  if (!begin_output(record, output_file, reader, prefix_lines, console) ||
      !run_pipeline(record, file, verified, *backend, tokenizer, reader, prefix_lines, output_file,
                    console, start))
    return;
  output_file.finish();
  record.complete = true;
}

// The hash of a file of a gigabyte takes as long as opening a GPU, so it is computed at the same
// time. This also maps the file's pages into the process, from which the weights are copied.
void translate_model(RunRecord& record, Console& console) {
  const Options& options = *record.options;
  const Clock::time_point start = Clock::now();
  share_heap_where_memory_is_short(options.threads);
  const bool memory_limited = memory_is_limited();
  const ModelFile file = ModelFile::open(options.model, /*verify_hash=*/false);
  Beside<void> verified(
      "verifying the model", [&] { file.verify_hash(); }, memory_limited);
  try {
    translate_input(record, file, verified, memory_limited, console, start);
  } catch (...) {
    // The error may follow from damage, which is said in its place.
    if (verified.pending()) verified.get();
    throw;
  }
}

}  // namespace

void translate(RunRecord& record, Console& console) {
  try {
    translate_model(record, console);
  } catch (...) {
    if (!model_lost()) throw;
    // The error follows from the loss.
  }
  if (model_lost())
    fail("{}: cannot be read any more: it was cut short while it was in use, or its disk failed",
         record.options->model);
}

}  // namespace xlate
