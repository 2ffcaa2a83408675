// Implements the annotation of decoded lines.
#include "app/annotations.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "app/resolve_options.h"

namespace xlate {
namespace {

// Returns whether tokens are aligned, to be printed or to place tags.
bool aligns(const Options& options) {
  return options.alignments || options.markup == MarkupKind::kHtml;
}

// Throws UsageError if an option was given that only changes alignments.
void refuse_without_alignments(const Options& options) {
  if (options.alignment_words && !options.alignments)
    throw UsageError("--alignment-words: expected --alignments beside it");
  for (const auto& [option, given] :
       {std::pair{"--alignment-layer", options.alignment_layer.has_value()},
        std::pair{"--alignment-heads", !options.alignment_heads.empty()}}) {
    if (given && !aligns(options)) {
      throw UsageError(fmt::format("{}: expected --alignments or --markup html beside it", option));
    }
  }
}

// Annotations are of one sentence, and only draws have several of them for a line.
void check_parts(const Options& options) {
  const char* option = options.alignments ? "--alignments" : "--token-scores";
  if (options.split_sentences || options.long_lines == LongLines::kSplit)
    throw UsageError(fmt::format("{}: cannot be used where lines are split", option));
  if (options.alignment_words && options.num_samples.value_or(1) > 1)
    throw UsageError("--alignment-words: cannot be used with --num-samples above 1");
}

void check_alignments(const Options& options, const ModelDescription& model) {
  if (!model.network.has_encoder()) {
    throw UsageError(
        fmt::format("--alignments: cannot be used: {} has no encoder, and so no "
                    "cross-attention to a source",
                    options.model));
  }
  const StackDescription& decoder = model.network.decoder;
  if (options.alignment_layer && *options.alignment_layer >= decoder.layers) {
    throw UsageError(
        fmt::format("--alignment-layer: {}, expected at most {}: the decoder of {} has {} layers",
                    *options.alignment_layer, decoder.layers - 1, options.model, decoder.layers));
  }
  std::vector<int> sorted = options.alignment_heads;
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
    throw UsageError(fmt::format("--alignment-heads: {} is there twice, expected once", *twice));
  const std::int64_t heads = decoder.attention.heads;
  for (const int head : options.alignment_heads) {
    if (head >= heads)
      throw UsageError(
          fmt::format("--alignment-heads: {}, expected at most {}: the attention of {} has {} "
                      "heads",
                      head, heads - 1, options.model, heads));
  }
  if (heads > HeadSet::kMost) {
    throw UsageError(fmt::format("{}: {} has {} heads, expected at most {}",
                                 options.alignments ? "--alignments" : "--markup html",
                                 options.model, heads, HeadSet::kMost));
  }
  if (options.alignment_words && !(is_text(options.input_format) && is_text(options.output_format)))
    throw UsageError(
        "--alignment-words: expected text as the format of the input and of the output");
}

ScoringOptions scoring_options_of(const Options& options, const Policy& policy,
                                  const ModelDescription& model) {
  const std::int64_t batch = std::min(options.batch_tokens, policy.encoder_tokens),
                     source = *options.max_source_length;
  ScoringOptions scoring{.batch_tokens = batch,
                         .pass_tokens = std::max(batch, policy.least_pass_tokens),
                         .longest_source = source,
                         .start = std::max(0, model.tokens.start),
                         .log_probabilities = options.token_scores};
  // A forced first token stands before a prefix.
  scoring.longest_target = options.context > 0
                               ? std::min(options.most_new_tokens, options.context - source)
                               : *options.max_length + options.longest_prefix + 1;
  if (!aligns(options)) return scoring;
  scoring.alignment_layer = *options.alignment_layer;
  for (const int head : options.alignment_heads) scoring.alignment_heads.add(head);
  return scoring;
}

}  // namespace

void resolve_annotations(Options& options, const ModelDescription& model) {
  if (annotates_all(options)) check_parts(options);
  refuse_without_alignments(options);
  if (!aligns(options)) return;
  check_alignments(options, model);
  const StackDescription& decoder = model.network.decoder;
  if (!options.alignment_layer) options.alignment_layer = decoder.layers - 1;
  if (!options.alignment_heads.empty()) return;
  for (int head = 0; head < static_cast<int>(decoder.attention.heads); ++head)
    options.alignment_heads.push_back(head);
}

// Gives the hypotheses of all lines to the scorer.
class Annotator::Hypotheses final : public SentenceInput {
 public:
  Hypotheses(const std::vector<AnnotatedLine>& lines, std::int32_t most) {
    for (const AnnotatedLine& line : lines) {
      for (Hypothesis& hypothesis : line.decoded.result.hypotheses(most)) {
        sources_.push_back(&line.decoded.sentence);
        hypotheses_.push_back(std::move(hypothesis));
      }
    }
    prepare();
  }
  const std::vector<Hypothesis>& list() const { return hypotheses_; }

  const Sentence* next(bool) override { return next_ < hypotheses_.size() ? &present_ : nullptr; }
  Sentence take() override {
    Sentence sentence = std::move(present_);
    ++next_;
    prepare();
    return sentence;
  }

 private:
  // A forced first token is a token of the target like others here, so that it is aligned, too.
  void prepare() {
    if (next_ == hypotheses_.size()) return;
    const Hypothesis& hypothesis = hypotheses_[next_];
    present_ = {.line = sources_[next_]->line, .ids = sources_[next_]->ids};
    present_.target = hypothesis.ids;
    if (hypothesis.ended) present_.target.push_back(hypothesis.end);
  }

  std::vector<const Sentence*> sources_;
  std::vector<Hypothesis> hypotheses_;
  std::size_t next_ = 0;
  Sentence present_;
};

Annotator::Annotator(const Options& options, const ModelDescription& model,
                     const LineMarkup& markup, Put put, std::function<void(Sentence)> put_overflow)
    : options_(options),
      model_(model),
      markup_(markup),
      put_(std::move(put)),
      put_overflow_(std::move(put_overflow)) {}

void Annotator::allocate(const LoadedNetwork& network, Backend& backend, const Policy& policy) {
  free();
  ScoringOptions scoring = scoring_options_of(options_, policy, model_);
  scoring.hands_over_overflows = static_cast<bool>(put_overflow_);
  backend_ = &backend;
  batch_tokens_ = scoring.batch_tokens;
  scorer_.emplace(network, backend, scoring);
}

void Annotator::add(std::vector<AnnotatedLine> lines, Runner& runner) {
  const std::int64_t rows = std::max(1, options_.n_best);
  std::vector<AnnotatedLine> others;
  for (AnnotatedLine& line : lines) {
    if (!annotates_all(options_) && !markup_.has_tags(line.decoded.sentence.line)) {
      others.push_back(std::move(line));
      continue;
    }
    const auto source = std::ssize(line.decoded.sentence.ids);
    tokens_ += rows * std::max<std::int64_t>(source, line.decoded.result.best_length());
    lines_.push_back(std::move(line));
  }
  if (!others.empty()) put_(std::move(others));
  if (tokens_ >= batch_tokens_) flush(runner);
}

void Annotator::flush(Runner& runner) {
  if (lines_.empty()) return;
  Hypotheses hypotheses(lines_, std::max(1, options_.n_best));
  // Both use memory of the backend that belongs to the step that is under way.
  backend_->order(runner.queue(), scorer_->queue());
  std::vector<ScoredSentence> scored;
  // A signal ends the run behind the lines that are decoded, and these are annotated.
  const std::atomic<bool> never{false};
  scorer_->run(
      hypotheses,
      [&](std::vector<ScoredSentence> batch) {
        std::move(batch.begin(), batch.end(), std::back_inserter(scored));
      },
      never);
  std::size_t next = 0;
  std::vector<AnnotatedLine> annotated;
  for (AnnotatedLine& line : lines_) {
    const std::int32_t rows = std::min(line.decoded.result.count(), std::max(1, options_.n_best));
    bool overflow = false;
    for (std::int32_t i = 0; i < rows; ++i, ++next) {
      overflow |= scored[next].not_finite;
      line.annotations.push_back(
          annotation_of(line.decoded.sentence, hypotheses.list()[next], scored[next], runner));
    }
    if (overflow)
      put_overflow_(std::move(line.decoded.sentence));
    else
      annotated.push_back(std::move(line));
  }
  lines_ = {};
  tokens_ = 0;
  put_(std::move(annotated));
}

Annotation Annotator::annotation_of(const Sentence& sentence, const Hypothesis& hypothesis,
                                    ScoredSentence& scored, const Runner& runner) const {
  Annotation annotation{std::move(scored.log_probabilities), std::move(scored.aligned)};
  if (hypothesis.ended && !annotation.aligned.empty()) annotation.aligned.pop_back();
  std::vector<float>& scores = annotation.token_scores;
  if (scores.empty()) return annotation;
  const std::int32_t forced_first = forced_first_of(options_, model_),
                     forced_end = model_.generation.forced_end;
  // What search forces adds nothing to a score.
  const std::int32_t first = sentence.forced_first >= 0 ? sentence.forced_first : forced_first;
  if (first >= 0 && !hypothesis.ids.empty() && hypothesis.ids.front() == first) scores.front() = 0;
  const std::int64_t given = runner.prefix_tokens(sentence);
  std::fill_n(scores.begin(), std::min<std::int64_t>(given, std::ssize(scores)), 0.0f);
  if (hypothesis.ended && hypothesis.end == forced_end &&
      hypothesis.length + given == runner.limit_of(sentence))
    scores.back() = 0;
  return annotation;
}

}  // namespace xlate
