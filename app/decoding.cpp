// Makes the runner of a run, and makes it anew with a smaller budget where the memory runs out.
#include "app/decoding.h"

#include <algorithm>
#include <iterator>
#include <new>

#include "app/forced_lengths.h"
#include "app/interrupt.h"
#include "app/resolve_options.h"
#include "app/sentence_inputs.h"
#include "engine/caches.h"
#include "engine/limits.h"

namespace xlate {

void fail_for_room(const Options& options, const char* cause) {
  const std::string limits = options.max_new_tokens
                                 ? fmt::format("{} new tokens (--max-new-tokens {})",
                                               options.most_new_tokens, *options.max_new_tokens)
                                 : fmt::format("--max-length {}, --max-length-factor {}",
                                               *options.max_length, *options.max_length_factor);
  fail("no room for {}, {}, --beam-size {} and --batch-tokens {}: {}", limits,
       source_limit_of(options), *options.beam_size, options.batch_tokens, cause);
}

RunnerStatistics with_last(RunnerStatistics before, const RunnerStatistics& last) {
  before.add(last);
  before.seconds = last.seconds;
  return before;
}

OutOfMemory no_room() { return OutOfMemory("out of memory" + memory_limits()); }

LoadedNetwork load_weights(const ModelFile& file, Backend& backend) {
  try {
    return load_network(file, backend);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(fmt::format("no room for the weights of {}: {}", file.name(), error.what()));
  }
}

Decoding::Decoding(const RunRecord& record, const ModelFile& file, Backend& backend,
                   const LineMarkup& markup, DecodingOutput output)
    : model_(file.description()),
      backend_(backend),
      markup_(markup),
      policy_(*record.policy),
      options_(*record.options),
      output_(std::move(output)),
      network_(load_weights(file, backend)),
      forced_lengths_(forced_lengths()) {
  if (!options_.batch_tokens_given) {
    const CacheShape shape = Transformer(network_, backend_).cache_shape();
    options_.batch_tokens =
        std::min(options_.batch_tokens,
                 Caches::affordable_tokens(backend_, policy_, shape, *options_.beam_size));
  }
  start();
}

void Decoding::start() {
  while (!runner_) {
    try {
      // The annotator allocates its memory first, because the caches take what is left.
      if (annotates(options_) && !annotator_)
        annotator_.emplace(options_, model_, markup_, output_.put, output_.put_overflow);
      if (annotator_) annotator_->allocate(network_, backend_, policy_);
      transformer_ = std::make_unique<Transformer>(network_, backend_);
      runner_ = make_runner();
    } catch (const OutOfMemory& error) {
      transformer_.reset();
      halve_budget(error);
    } catch (const std::bad_alloc&) {
      // The tables of a large budget had no room.
      transformer_.reset();
      halve_budget(no_room());
    } catch (const Error& error) {
      fail_for_room(options_, error.what());
    }
  }
}

void Decoding::halve_budget(const OutOfMemory& error) {
  if (annotator_) annotator_->free();
  // With --line-buffered there is one sentence in flight.
  if (options_.line_buffered) options_.batch_tokens = 1;
  if (options_.batch_tokens == 1) fail_for_room(options_, error.what());
  options_.batch_tokens /= 2;
  ++halvings_;
}

std::unique_ptr<Runner> Decoding::make_runner() {
  const SearchRules rules = rules_of(options_, model_);
  const bool prompts = options_.max_new_tokens.has_value();
  const RunnerOptions wanted{
      .rules = forced_lengths_.empty() ? rules : ending_at_limits(rules),
      .policy = policy_,
      // With a budget of one token there is one slot, and little to copy to the device.
      .batch_tokens = options_.line_buffered ? 1 : options_.batch_tokens,
      .longest_source = *options_.max_source_length,
      .max_length = prompts ? options_.most_new_tokens : *options_.max_length,
      .max_length_factor = options_.max_length_factor.value_or(0),
      .context = options_.context,
      // A forced first token belongs to a prefix.
      .longest_prefix = options_.longest_prefix > 0 ? options_.longest_prefix + 1 : 0,
      .hands_over_overflows = static_cast<bool>(output_.put_overflow)};
  return std::make_unique<Runner>(backend_, *transformer_, wanted);
}

void Decoding::run(SentenceInput& source) {
  ForcedLengths forced(source, forced_lengths_);
  FlushBeforeWaiting flushing(
      forced_lengths_.empty() ? source : static_cast<SentenceInput&>(forced), [&] { flush(); });
  BeginAgainInput input(flushing, again_);
  const auto take_all = [&](std::vector<Decoded> decoded) { take(std::move(decoded)); };
  for (bool done = false; !done;) {
    try {
      runner_->run(input, take_all, stop_flag());
      flush();
      done = true;
    } catch (const OutOfMemory& error) {
      std::vector<Sentence> unfinished = runner_->take_unfinished();
      begun_again_ += std::ssize(unfinished);
      again_.insert(again_.end(), std::make_move_iterator(unfinished.begin()),
                    std::make_move_iterator(unfinished.end()));
      before_.add(runner_->statistics());
      runner_.reset();
      transformer_.reset();
      halve_budget(error);
      start();
    } catch (const NoContinuation&) {
      flush();
      throw;
    }
  }
}

void Decoding::take(std::vector<Decoded> decoded) {
  std::vector<AnnotatedLine> lines;
  for (Decoded& each : decoded) {
    if (each.result.not_finite())
      output_.put_overflow(std::move(each.sentence));
    else
      lines.push_back({std::move(each)});
  }
  if (lines.empty()) return;
  if (annotator_)
    annotator_->add(std::move(lines), *runner_);
  else
    output_.put(std::move(lines));
}

void Decoding::flush() {
  if (annotator_ && runner_) annotator_->flush(*runner_);
  if (output_.flush) output_.flush();
}

RunnerStatistics Decoding::statistics() const {
  return runner_ ? with_last(before_, runner_->statistics()) : before_;
}

}  // namespace xlate
