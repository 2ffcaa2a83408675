// Implements the scoring of lines, those whose numbers overflow once more in float32.
#include "app/score_lines.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "app/decoding.h"
#include "app/format.h"
#include "app/interrupt.h"
#include "app/open_backend.h"
#include "app/resolve_options.h"
#include "app/sentence_inputs.h"
#include "models/network.h"
#include "models/token_scorer.h"

namespace xlate {
namespace {

// A single text has no target, and a prompt and its continuation fill the context together.
ScoringOptions scoring_options_of(const RunRecord& record, const ModelDescription& model) {
  const Options& options = *record.options;
  const Policy& policy = *record.policy;
  const std::int64_t batch = std::min(options.batch_tokens, policy.encoder_tokens);
  ScoringOptions scoring{.batch_tokens = batch,
                         .pass_tokens = std::max(batch, policy.least_pass_tokens),
                         .longest_source = *options.max_source_length,
                         .hands_over_overflows = overflow_is_redone(options)};
  if (!options.score_pairs) return scoring;
  scoring.end = options.target_end;
  if (!model.network.has_encoder()) {
    scoring.longest_target = options.context - scoring.longest_source;
    return scoring;
  }
  scoring.longest_target = options.longest_target;
  scoring.start = model.tokens.start;
  scoring.forced_first = forced_first_of(options, model);
  return scoring;
}

// Returns the score that search gives a hypothesis of these log-probabilities (docs/search.md). A
// forced first token counts, although it is not scored.
double score_of_pair(const ScoredSentence& scored, double sum, bool forced, double penalty) {
  const auto tokens = static_cast<double>(scored.log_probabilities.size()) + (forced ? 1 : 0);
  return tokens > 0 ? sum / std::pow(tokens, penalty) : 0;
}

/// Scores sentences with the network on one backend, in smaller batches where the memory is too
/// small.
class BatchScorer {
 public:
  /// Throws Error if the memory is too small for any batch. The arguments must outlive the object.
  BatchScorer(RunRecord& record, const ModelFile& file, Backend& backend,
              const ScoringOptions& scoring)
      : record_(record),
        backend_(backend),
        network_(load_weights(file, backend)),
        scoring_(scoring) {
    start();
  }

  /// Scores sentences as TokenScorer::run() does. Where the memory runs out, it halves the batches
  /// and begins those again that are not finished, which changes no score.
  void run(SentenceInput& source, const TokenScorer::Done& done) {
    std::vector<Sentence> again;
    BeginAgainInput input(source, again);
    for (;;) {
      try {
        return scorer_->run(input, done, stop_flag());
      } catch (const OutOfMemory& error) {
        const std::vector<Sentence> unfinished = scorer_->take_unfinished();
        again.insert(again.end(), unfinished.rbegin(), unfinished.rend());
        record_.begun_again += std::ssize(unfinished);
        before_.add(scorer_->statistics());
        scorer_.reset();
        halve_batches(error);
        start();
      }
    }
  }

  RunnerStatistics statistics() const {
    return scorer_ ? with_last(before_, scorer_->statistics()) : before_;
  }
  const ScoringOptions& scoring() const { return scoring_; }

 private:
  void start() {
    while (!scorer_) {
      try {
        scorer_ = std::make_unique<TokenScorer>(network_, backend_, scoring_);
      } catch (const OutOfMemory& error) {
        halve_batches(error);
      } catch (const std::bad_alloc&) {
        halve_batches(no_room());
      }
    }
  }

  void halve_batches(const OutOfMemory& error) {
    if (scoring_.batch_tokens == 1)
      fail("no room for {} and --batch-tokens 1: {}", source_limit_of(*record_.options),
           error.what());
    scoring_.batch_tokens /= 2;
    scoring_.pass_tokens = std::max<std::int64_t>(1, scoring_.pass_tokens / 2);
    record_.options->batch_tokens = scoring_.batch_tokens;
    ++record_.halvings;
  }

  RunRecord& record_;
  Backend& backend_;
  const LoadedNetwork network_;
  ScoringOptions scoring_;
  std::unique_ptr<TokenScorer> scorer_;
  RunnerStatistics before_;  // They are those of earlier scorers.
};

/// Scores the lines of a run.
class LineScorer {
 public:
  LineScorer(RunRecord& record, const ModelFile& file, Backend& backend, LineFields& fields,
             OrderedOutput& output)
      : record_(record),
        options_(*record.options),
        file_(file),
        backend_(backend),
        fields_(fields),
        output_(output),
        scorer_(record, file, backend, scoring_options_of(record, file.description())) {}

  void run(SentenceInput& input) {
    // Before it waits for lines, everything that was read is scored and written.
    FlushBeforeWaiting flushing(input, [&] { score_overflows(); });
    run(scorer_, flushing);
    score_overflows();
  }

  void keep_figures() {
    record_.statistics = scorer_.statistics();
    if (float32_scorer_) record_.statistics.add(float32_scorer_->statistics());
    record_.memory = backend_.memory();
    record_.paths = backend_.paths();
  }

 private:
  // So many lines whose numbers overflow are scored once more together.
  static constexpr std::size_t kBatch = 256;

  void run(BatchScorer& scorer, SentenceInput& input) {
    scorer.run(input, [&](std::vector<ScoredSentence> scored) { take(std::move(scored)); });
  }

  void take(std::vector<ScoredSentence> scored) {
    for (ScoredSentence& each : scored) {
      if (each.not_finite)
        overflows_.push_back(std::move(each.sentence));
      else
        put(each);
    }
    if (overflows_.size() >= kBatch) score_overflows();
  }

  void put(const ScoredSentence& scored) {
    const std::vector<float>& values = scored.log_probabilities;
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    *record_.log_probability += sum;
    record_.counters.target_tokens += std::ssize(values);
    record_.counters.source_tokens_done += std::ssize(scored.sentence.ids);
    const bool forced = scored.sentence.forced_first >= 0 || scorer_.scoring().forced_first >= 0;
    const double score =
        options_.score_pairs ? score_of_pair(scored, sum, forced, *options_.length_penalty) : sum;
    const std::int64_t line = scored.sentence.line;
    output_.put(line,
                format_score(score, std::ssize(values) + forced, options_, fields_.take(line)));
  }

  void score_overflows() {
    if (overflows_.empty()) return;
    if (!float32_scorer_) {
      ScoringOptions scoring = scorer_.scoring();
      scoring.hands_over_overflows = false;
      float32_backend_ = open_float32_beside(backend_, options_);
      float32_scorer_.emplace(record_, file_, *float32_backend_, scoring);
    }
    // Where the scorer had no room, the lines are still in the list, and come here again.
    record_.overflows += std::ssize(overflows_);
    ListInput input(std::exchange(overflows_, {}));
    run(*float32_scorer_, input);
  }

  RunRecord& record_;
  const Options& options_;
  const ModelFile& file_;
  Backend& backend_;
  LineFields& fields_;
  OrderedOutput& output_;
  BatchScorer scorer_;
  // They are made for the first line whose numbers overflow.
  std::unique_ptr<Backend> float32_backend_;
  std::optional<BatchScorer> float32_scorer_;
  std::vector<Sentence> overflows_;
};

}  // namespace

void score_lines(RunRecord& record, const ModelFile& file, Beside<void>& verified, Backend& backend,
                 SentenceInput& input, LineFields& fields, OrderedOutput& output) {
  const Clock::time_point start = Clock::now();
  LineScorer scorer(record, file, backend, fields, output);
  verified.get();
  record.model_ready = Clock::now();
  record.load_seconds += std::chrono::duration<double>(record.model_ready - start).count();
  record.log_probability = 0;
  try {
    scorer.run(input);
  } catch (...) {
    scorer.keep_figures();
    throw;
  }
  scorer.keep_figures();
}

}  // namespace xlate
