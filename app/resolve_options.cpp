// Fills in what the command line leaves to the model and to the device, and checks what it asks of
// them.
#include "app/resolve_options.h"

#include <algorithm>

#include "app/annotations.h"
#include "app/languages.h"
#include "app/line_splitter.h"
#include "app/markup_lines.h"
#include "app/prompts.h"
#include "app/scoring.h"

namespace xlate {
namespace {

constexpr int kDefaultBeams = 4;
constexpr float kDefaultLengthPenalty = 1;
constexpr std::int64_t kDefaultMaxLength = 512, kDefaultNewTokens = 256;
// A line of JSON may ask for as many new tokens without a larger --max-new-tokens. Room for more is
// not kept, because with it some models would not fit into a GPU.
constexpr std::int64_t kMostNewTokensOfLine = 4096;
constexpr double kDefaultLengthFactor = 3;
// So many tokens of an output may be given. Each takes memory in every sentence in flight.
constexpr std::int64_t kMostPrefix = 128;

void check_positions(const char* option, std::int64_t length, std::int64_t positions) {
  if (positions > 0 && length > positions)
    throw UsageError(fmt::format("{}: {}, expected at most {}: the model stores so many positions",
                                 option, length, positions));
}

// Throws UsageError if an option was given that the model does not have.
template <class T>
void refuse_if_given(const char* option, const std::optional<T>& value, const Options& options,
                     const char* why) {
  if (value)
    throw UsageError(
        fmt::format("{}: {}, cannot be used: {} {}", option, *value, options.model, why));
}

// Returns how many tokens an output may have besides those that are given, where the model stores
// that many positions and the command line does not say it.
std::int64_t positions_without_prefix(const Options& options, std::int64_t positions) {
  return positions > 0 && !options.target_prefix.empty()
             ? std::max<std::int64_t>(1, positions - kMostPrefix - 1)
             : positions;
}

// Fills in how many tokens of an output may be given. A forced first token stands before them.
void resolve_target_prefix(Options& options, std::int64_t positions) {
  if (options.target_prefix.empty()) return;
  if (options.target_prefix == "-") throw UsageError("--target-prefix: -, expected a file");
  if (options.split_sentences || options.long_lines == LongLines::kSplit)
    throw UsageError("--target-prefix: cannot be used where lines are split");
  options.longest_prefix = kMostPrefix;
  if (positions == 0) return;
  options.longest_prefix = std::min(kMostPrefix, positions - *options.max_length - 1);
  if (options.longest_prefix < 1)
    throw UsageError(
        fmt::format("--max-length: {}, expected at most {} with --target-prefix: {} "
                    "stores {} positions",
                    *options.max_length, positions - 2, options.model, positions));
}

// Fills in the limits of a model with an encoder.
void resolve_lengths(Options& options, const ModelDescription& model) {
  const std::int64_t target_positions = model.network.decoder.embedding.rows;
  refuse_if_given("--max-new-tokens", options.max_new_tokens, options,
                  "has an encoder, and --max-length is its limit");
  if (!options.max_length)
    options.max_length = within(model.generation.max_length.value_or(kDefaultMaxLength),
                                positions_without_prefix(options, target_positions));
  if (!options.max_length_factor) options.max_length_factor = kDefaultLengthFactor;
  check_positions("--max-length", *options.max_length, target_positions);
  resolve_target_prefix(options, target_positions);
  resolve_source_length(options, model);
}

// Returns how many tokens a prompt and what is generated may have together.
std::int64_t context_of(const Options& options, const ModelDescription& model) {
  const std::int64_t context =
      within(model.generation.max_source_length, model.network.decoder.embedding.rows);
  // A number of new tokens takes the place of the checkpoint's bound on all tokens together.
  if (options.max_new_tokens || model.generation.max_length) return context;
  return std::min(context, model.generation.max_total_length.value_or(context));
}

// Fills in the limits of a model without an encoder, whose prompts must leave room for one token.
void resolve_prompt_lengths(Options& options, const ModelDescription& model) {
  const char* why = "has no encoder, and --max-new-tokens is its limit";
  refuse_if_given("--max-length", options.max_length, options, why);
  refuse_if_given("--max-length-factor", options.max_length_factor, options, why);
  const GenerationDefaults& defaults = model.generation;
  options.context = context_of(options, model);
  const std::int64_t longest = options.context - 1;
  if (!options.max_new_tokens)
    options.max_new_tokens = defaults.max_length.value_or(
        defaults.max_total_length ? *defaults.max_total_length : kDefaultNewTokens);
  options.most_new_tokens = *options.max_new_tokens;
  if (options.input_format == Format::kJsonl) {
    options.most_new_tokens =
        std::max(options.most_new_tokens, std::min(options.context, kMostNewTokensOfLine));
  }
  set_default_source_length(options, longest);
  if (*options.max_source_length > longest)
    throw UsageError(fmt::format(
        "--max-source-length: {}, expected at most {}: a prompt and what {} generates may together "
        "have {} tokens",
        *options.max_source_length, longest, options.model, options.context));
}

// Checks the options of lines of JSON.
void resolve_json_lines(Options& options) {
  if (options.input_format == Format::kJsonl) {
    if (options.lang_column) {
      throw UsageError(
          "--lang-column: cannot be used with --input-format jsonl, whose objects name "
          "their languages as source_lang and target_lang");
    }
    if (!options.text_key) options.text_key = "text";
  } else if (options.text_key) {
    throw UsageError(fmt::format("--text-key: cannot be used with --input-format {}",
                                 name_of(options.input_format)));
  }
  if (options.output_format == Format::kJsonl && options.scores) {
    throw UsageError(
        "--scores: cannot be used with --output-format jsonl, whose objects have the "
        "score");
  }
}

// Throws UsageError for an option that was given without another one that it needs.
void refuse_without(const char* option, bool given, const char* needed) {
  if (given) throw UsageError(fmt::format("{}: expected {} with it", option, needed));
}

// Fills in the options of random draws, and the beam size where tokens are drawn.
void resolve_sampling(Options& options, const GenerationDefaults& defaults) {
  if (!options.sample) {
    refuse_without("--temperature", options.temperature.has_value(), "--sample");
    refuse_without("--top-k", options.top_k.has_value(), "--sample");
    refuse_without("--top-p", options.top_p.has_value(), "--sample");
    refuse_without("--seed", options.seed.has_value(), "--sample");
    refuse_without("--num-samples", options.num_samples.has_value(), "--sample");
    return;
  }
  if (options.beam_size.value_or(1) != 1)
    throw UsageError(fmt::format("--beam-size: {}, expected 1 with --sample", *options.beam_size));
  if (options.n_best > 0)
    throw UsageError(
        "--n-best: cannot be used with --sample; --num-samples N gives N draws of each "
        "line");
  for (const auto& [option, is_given] :
       {std::pair{"--early-stopping", options.early_stopping.has_value()},
        std::pair{"--beam-groups", options.beam_groups.has_value()},
        std::pair{"--diversity", options.diversity.has_value()}}) {
    if (is_given)
      throw UsageError(
          fmt::format("{}: cannot be used with --sample, which draws one beam", option));
  }
  options.num_samples = options.num_samples.value_or(1);
  if (*options.num_samples > 1 &&
      (options.split_sentences || options.long_lines == LongLines::kSplit))
    throw UsageError("--num-samples: expected 1 where lines are split, whose parts are joined");
  options.beam_size = 1;
  options.temperature = options.temperature.value_or(defaults.temperature.value_or(1));
  options.top_k = options.top_k.value_or(defaults.top_k.value_or(0));
  options.top_p = options.top_p.value_or(defaults.top_p.value_or(1));
  options.seed = options.seed.value_or(0);
}

// Fills in the options of diverse beam search, of which none makes sense without the other.
void resolve_beam_groups(Options& options) {
  options.beam_groups = options.beam_groups.value_or(1);
  options.diversity = options.diversity.value_or(0);
  const int groups = *options.beam_groups;
  const float diversity = *options.diversity;
  if (*options.beam_size % groups != 0) {
    throw UsageError(fmt::format("--beam-groups: {}, expected a divisor of the beam size, {}",
                                 groups, *options.beam_size));
  }
  if (groups > 1 && diversity == 0) {
    throw UsageError(fmt::format(
        "--beam-groups: {}, expected --diversity above 0 with it, without which all groups find "
        "the same",
        groups));
  }
  if (groups == 1 && diversity != 0) {
    throw UsageError(
        fmt::format("--diversity: {}, expected --beam-groups above 1 with it", diversity));
  }
}

// Fills in the options of search and the limits.
void resolve_search(Options& options, const ModelDescription& model) {
  const GenerationDefaults& defaults = model.generation;
  resolve_sampling(options, defaults);
  if (!options.beam_size) options.beam_size = defaults.beam_size.value_or(kDefaultBeams);
  resolve_beam_groups(options);
  if (!options.length_penalty) options.length_penalty = default_length_penalty(model);
  if (!options.early_stopping)
    options.early_stopping = defaults.early_stopping.value_or(EarlyStopping::kFalse);
  if (!options.min_length) options.min_length = defaults.min_length.value_or(0);
  if (!options.no_repeat_ngram) options.no_repeat_ngram = defaults.no_repeat_ngram.value_or(0);
  if (!options.repetition_penalty)
    options.repetition_penalty = defaults.repetition_penalty.value_or(1);
  if (model.network.has_encoder())
    resolve_lengths(options, model);
  else
    resolve_prompt_lengths(options, model);
  if (options.n_best > *options.beam_size) {
    throw UsageError(fmt::format("--n-best: {}, expected at most the beam size, {}", options.n_best,
                                 *options.beam_size));
  }
}

}  // namespace

float default_length_penalty(const ModelDescription& model) {
  return model.generation.length_penalty.value_or(kDefaultLengthPenalty);
}

void set_default_source_length(Options& options, std::int64_t length) {
  if (options.max_source_length) return;
  options.max_source_length = length;
  options.max_source_length_given = false;
}

std::string source_limit_of(const Options& options) {
  return fmt::format("--max-source-length {}{}", *options.max_source_length,
                     options.max_source_length_given ? "" : " (that of the model)");
}

void resolve_source_length(Options& options, const ModelDescription& model) {
  const std::int64_t positions = model.network.encoder.embedding.rows;
  set_default_source_length(options, within(model.generation.max_source_length, positions));
  check_positions("--max-source-length", *options.max_source_length, positions);
}

std::int32_t forced_first_of(const Options& options, const ModelDescription& model) {
  return options.target_lang ? model.tokens.languages.at(*options.target_lang)
                             : model.generation.forced_first;
}

SearchRules rules_of(const Options& options, const ModelDescription& model) {
  SearchRules rules{.beams = *options.beam_size,
                    .beam_groups = *options.beam_groups,
                    .diversity = *options.diversity,
                    .length_penalty = *options.length_penalty,
                    .early_stopping = *options.early_stopping,
                    // Without an encoder, the last token of the prompt is the start token.
                    .start = std::max(0, model.tokens.start),
                    .ends = model.generation.ends,
                    .forced_first = forced_first_of(options, model),
                    .forced_end = model.generation.forced_end,
                    .renormalize = model.generation.renormalize,
                    .never_chosen = model.generation.never_chosen,
                    .min_length = *options.min_length,
                    .no_repeat_ngram = *options.no_repeat_ngram,
                    .repetition_penalty = *options.repetition_penalty};
  rules.never_chosen.insert(rules.never_chosen.end(), options.suppressed.begin(),
                            options.suppressed.end());
  if (options.sample)
    rules.sampling = Sampling{*options.temperature, *options.top_k, *options.top_p,
                              static_cast<std::uint64_t>(*options.seed)};
  return rules;
}

void resolve(Options& options, const ModelDescription& model) {
  resolve_json_lines(options);
  if (scores_lines(options))
    resolve_scoring(options, model);
  else
    resolve_search(options, model);
  resolve_languages(options, model);
  options.target_first = forced_first_of(options, model);
  check_markup(options, model);
  resolve_annotations(options, model);
  resolve_prompts(options, model);
  check_splitting(options, model);
}

Precision effective_precision(Precision precision, const NetworkDescription& network, bool gpu) {
  if (precision != Precision::kAuto) return precision;
  if (!gpu) return Precision::kFloat32;
  return network.overflows_float16 ? Precision::kBFloat16 : Precision::kFloat16;
}

void resolve_device(Options& options, const NetworkDescription& network, const Policy& policy,
                    bool gpu) {
  if (options.device == "auto" || options.device == "cuda") options.device = gpu ? "cuda:0" : "cpu";
  options.precision = effective_precision(options.precision, network, gpu);
  if (options.batch_tokens == 0) {
    options.batch_tokens_given = false;
    options.batch_tokens = policy.batch_tokens(options.beam_size.value_or(1));
  }
  if (options.line_buffered) options.window = 1;
  if (options.window == 0) options.window = policy.window;
}

}  // namespace xlate
