// Implements the checks and the run of --score-text.
#include "app/score_text.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "app/interrupt.h"
#include "models/token_scorer.h"

namespace xlate {
namespace {

// Throws UsageError for the first of these options that was given.
void refuse_options_of_search(const Options& options) {
  const std::pair<const char*, bool> given[] = {
      {"--beam-size", options.beam_size.has_value()},
      {"--length-penalty", options.length_penalty.has_value()},
      {"--early-stopping", options.early_stopping.has_value()},
      {"--min-length", options.min_length.has_value()},
      {"--no-repeat-ngram", options.no_repeat_ngram.has_value()},
      {"--repetition-penalty", options.repetition_penalty.has_value()},
      {"--suppress", !options.suppress.empty()},
      {"--suppress-unk", options.suppress_unk},
      {"--max-length", options.max_length.has_value()},
      {"--max-length-factor", options.max_length_factor.has_value()},
      {"--max-new-tokens", options.max_new_tokens.has_value()},
      {"--n-best", options.n_best > 0},
      {"--scores", options.scores},
      {"--template", options.template_text.has_value()},
      {"--template-file", !options.template_file.empty()},
      {"--echo", options.echo},
      {"--stop", !options.stop.empty()},
      {"--newline", options.newline.has_value()},
      {"--output-format",
       options.output_format == Format::kPieces || options.output_format == Format::kIds}};
  for (const auto& [option, is_given] : given) {
    if (is_given)
      throw UsageError(fmt::format(
          "{}: expected no such option with --score-text, which generates nothing", option));
  }
}

}  // namespace

void resolve_score_text(Options& options, const ModelDescription& model) {
  if (model.network.has_encoder())
    throw UsageError(fmt::format(
        "--score-text: expected no such option: {} has an encoder, and scores no text by itself",
        options.model));
  refuse_options_of_search(options);
  const std::int64_t positions = model.network.decoder.embedding.rows,
                     longest = positions > 0
                                   ? std::min(model.generation.max_source_length, positions)
                                   : model.generation.max_source_length;
  options.context = longest;
  if (!options.max_source_length) options.max_source_length = longest;
  if (*options.max_source_length > longest)
    throw UsageError(fmt::format("--max-source-length: {}, expected at most {}, the context of {}",
                                 *options.max_source_length, longest, options.model));
}

std::string format_score(double log_probability, std::int64_t tokens, const Options& options,
                         std::string fields) {
  if (options.output_format == Format::kJsonl)
    return json_score_line(std::move(fields), log_probability, tokens);
  return fmt::format("{:.6g} ||| {}\n", log_probability, tokens);
}

void score_text(RunRecord& record, const ModelFile& file, Backend& backend, SentenceInput& input,
                LineFields& fields, OrderedOutput& output) {
  const Options& options = *record.options;
  const Policy& policy = *record.policy;
  const Clock::time_point start = Clock::now();
  const std::int64_t batch = std::min(options.batch_tokens, policy.encoder_tokens);
  std::unique_ptr<TokenScorer> scorer;
  try {
    scorer = std::make_unique<TokenScorer>(
        file, backend,
        ScoringOptions{.batch_tokens = batch,
                       .pass_tokens = std::max(batch, policy.least_pass_tokens),
                       .longest_source = *options.max_source_length});
  } catch (const Error& error) {
    fail("no room for --max-source-length {} and --batch-tokens {}: {}", *options.max_source_length,
         options.batch_tokens, error.what());
  }
  record.model_ready = Clock::now();
  record.load_seconds += std::chrono::duration<double>(record.model_ready - start).count();
  const auto keep_figures = [&] {
    record.statistics = scorer->statistics();
    record.memory = backend.memory();
    record.paths = backend.paths();
  };
  record.log_probability = 0;
  try {
    scorer->run(
        input,
        [&](std::vector<ScoredSentence> scored) {
          for (const ScoredSentence& text : scored) {
            const std::vector<float>& values = text.log_probabilities;
            const double sum = std::accumulate(values.begin(), values.end(), 0.0);
            *record.log_probability += sum;
            record.counters.target_tokens += std::ssize(values);
            const std::int64_t line = text.sentence.line;
            output.put(line, format_score(sum, std::ssize(values), options, fields.take(line)));
          }
        },
        stop_flag());
  } catch (...) {
    keep_figures();
    throw;
  }
  keep_figures();
}

}  // namespace xlate
