// Implements the checks of --score-text and --score-pairs.
#include "app/scoring.h"

#include <algorithm>
#include <utility>

#include "app/resolve_options.h"

namespace xlate {
namespace {

const char* name_of_mode(const Options& options) {
  return options.score_pairs ? "--score-pairs" : "--score-text";
}

// Throws UsageError for the first of these options that was given. A length penalty and the
// templates of prompts have a meaning for pairs.
void refuse_options_of_search(const Options& options) {
  const bool text = options.score_text;
  const std::pair<const char*, bool> given[] = {
      {"--beam-size", options.beam_size.has_value()},
      {"--beam-groups", options.beam_groups.has_value()},
      {"--diversity", options.diversity.has_value()},
      {"--length-penalty", text && options.length_penalty.has_value()},
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
      {"--token-scores", options.token_scores},
      {"--alignments", options.alignments},
      {"--target-prefix", !options.target_prefix.empty()},
      {"--sample", options.sample},
      {"--temperature", options.temperature.has_value()},
      {"--top-k", options.top_k.has_value()},
      {"--top-p", options.top_p.has_value()},
      {"--seed", options.seed.has_value()},
      {"--num-samples", options.num_samples.has_value()},
      {"--split-sentences", options.split_sentences},
      {"--long-lines split", options.long_lines == LongLines::kSplit},
      {"--chat", text && options.chat},
      {"--template", text && options.template_text.has_value()},
      {"--template-file", text && !options.template_file.empty()},
      {"--echo", options.echo},
      {"--stop", !options.stop.empty()},
      {"--newline", options.newline.has_value()},
      {"--output-format",
       options.output_format == Format::kPieces || options.output_format == Format::kIds}};
  for (const auto& [option, is_given] : given) {
    if (is_given)
      throw UsageError(fmt::format("{}: cannot be used with {}, which generates nothing", option,
                                   name_of_mode(options)));
  }
}

// Fills in the lengths of texts, or of prompts, which must leave room for one token.
void resolve_context(Options& options, const ModelDescription& model) {
  options.context =
      within(model.generation.max_source_length, model.network.decoder.embedding.rows);
  const std::int64_t longest = options.context - (options.score_pairs ? 1 : 0);
  set_default_source_length(options, longest);
  if (*options.max_source_length > longest) {
    throw UsageError(fmt::format(
        "--max-source-length: {}, expected at most {}, {} of {}", *options.max_source_length,
        longest, options.score_pairs ? "one less than the context" : "the context", options.model));
  }
}

// Fills in what a target is scored with.
void resolve_pairs(Options& options, const ModelDescription& model) {
  const std::vector<std::int32_t>& ends = model.generation.ends;
  if (!options.length_penalty) options.length_penalty = default_length_penalty(model);
  options.target_end = ends.size() == 1 ? ends.front() : -1;
  if (!model.network.has_encoder()) {
    resolve_context(options, model);
    return;
  }
  resolve_source_length(options, model);
  options.longest_target = within(*options.max_source_length, model.network.decoder.embedding.rows);
}

}  // namespace

void resolve_scoring(Options& options, const ModelDescription& model) {
  if (options.score_text && options.score_pairs)
    throw UsageError("--score-text: cannot be used beside --score-pairs");
  if (options.score_text && model.network.has_encoder()) {
    throw UsageError(
        fmt::format("--score-text: cannot be used: {} has an encoder, and scores no text by itself "
                    "(--score-pairs scores its targets)",
                    options.model));
  }
  refuse_options_of_search(options);
  if (options.score_pairs)
    resolve_pairs(options, model);
  else
    resolve_context(options, model);
}

}  // namespace xlate
