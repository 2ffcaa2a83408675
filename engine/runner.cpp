// Implements the choice of the sizes of a run, and its loop. The choice of the rows of a step is in
// runner_rows.cpp.
#include "engine/runner.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "engine/error.h"

namespace xlate {
namespace {

// It is added to ⌊factor · S⌋ so that the limit does not cut the translations of very short
// sentences.
constexpr std::int64_t kLimitExtra = 10;

}  // namespace

Runner::Runner(Backend& backend, SequenceModel& model, const RunnerOptions& options)
    : backend_(backend),
      model_(model),
      options_(options),
      queue_(backend.make_queue()),
      encoder_queue_(backend.make_queue()) {
  const Policy& policy = options.policy;
  // The shortest prompt may be continued by the largest number of tokens.
  const std::int64_t longest = limit_of(options.context > 0 ? 1 : options.longest_source) +
                               options.longest_prefix,
                     before = options.context > 0 ? options.longest_source - 1 : 0,
                     beams = options.rules.beams;
  const std::int64_t for_state =
      static_cast<std::int64_t>(backend.cache_budget()) / policy.state_share;
  const std::int64_t affordable =
      for_state / Search::bytes_per_slot(options.rules, longest, before, options.longest_prefix);
  const std::int64_t wanted = options.batch_tokens / policy.tokens_per_slot;
  const std::int64_t slots =
      std::max<std::int64_t>(1, std::min({wanted, affordable, policy.most_rows / beams}));
  const std::int64_t batches = options.refill ? policy.refill_share : 1;
  encoder_tokens_ =
      std::clamp<std::int64_t>(options.batch_tokens / batches, 1, policy.encoder_tokens);
  const Capacity capacity{.slots = slots,
                          .beams = beams,
                          .encoder_tokens = std::max(encoder_tokens_, options.longest_source),
                          .pass_tokens = std::max(encoder_tokens_, policy.least_pass_tokens),
                          .source_tokens = options.batch_tokens,
                          .longest_source = options.longest_source,
                          .longest_target = longest,
                          .target_factor = options.context > 0 ? 0 : options.max_length_factor,
                          .target_extra = options.context > 0 ? longest : kLimitExtra};
  model_.allocate(capacity);
  caches_ = std::make_unique<Caches>(backend_, policy, model_.cache_shape(), capacity);
  model_.begin(caches_->paged_caches());
  search_ = std::make_unique<Search>(backend_, *queue_, options.rules, slots, longest, before,
                                     options.longest_prefix);
  rows_device_ = backend_.allocate(static_cast<std::size_t>(slots) * sizeof(std::int32_t));
  slots_.resize(static_cast<std::size_t>(slots));
  for (std::int64_t slot = slots; slot-- > 0;) free_.push_back(static_cast<std::int32_t>(slot));
}

Runner::~Runner() = default;

std::int64_t Runner::limit_of(std::int64_t source_tokens) const {
  if (options_.context > 0) return std::min(options_.max_length, options_.context - source_tokens);
  const double scaled =
      std::floor(options_.max_length_factor * static_cast<double>(source_tokens)) +
      static_cast<double>(kLimitExtra);
  return static_cast<std::int64_t>(std::min(static_cast<double>(options_.max_length), scaled));
}

// Room for the prefix is added, except where prompts and targets share a context.
std::int32_t Runner::limit_of(const Sentence& sentence) const {
  const std::int64_t prefix = prefix_tokens(sentence), tokens = std::ssize(sentence.ids);
  std::int64_t limit = limit_of(options_.context > 0 ? tokens + prefix : tokens);
  if (sentence.limit > 0) limit = std::min<std::int64_t>(limit, sentence.limit);
  return static_cast<std::int32_t>(limit + prefix);
}

std::int64_t Runner::prefix_tokens(const Sentence& sentence) const {
  if (sentence.target.empty()) return 0;
  return std::ssize(sentence.target) + (forced_first_of(sentence) >= 0 ? 1 : 0);
}

// A forced first token belongs to the prefix if there is one.
std::vector<std::int32_t> Runner::prefix_of(const Sentence& sentence) const {
  std::vector<std::int32_t> prefix = sentence.target;
  const std::int32_t first = forced_first_of(sentence);
  if (!prefix.empty() && first >= 0) prefix.insert(prefix.begin(), first);
  return prefix;
}

std::int32_t Runner::forced_first_of(const Sentence& sentence) const {
  return sentence.forced_first >= 0 ? sentence.forced_first : options_.rules.forced_first;
}

void Runner::run(SentenceInput& source, const Done& done, const std::atomic<bool>& stop) {
  while (!stop) {
    admit(source);
    if (active_.empty()) break;
    const std::int64_t steps = steps_at_once();
    choose_rows(steps);
    if (rows_.empty()) {
      // All sentences in flight are done, or wait for pages of those that are.
      settle(done);
      continue;
    }
    step(steps);
    while (static_cast<int>(pending_steps_.size()) > backend_.steps_ahead() ||
           (!pending_steps_.empty() && pending_steps_.front().done->ready()))
      settle(done);
  }
}

RunnerStatistics Runner::statistics() const {
  RunnerStatistics statistics = statistics_;
  statistics.seconds = backend_.work_seconds();
  return statistics;
}

// The exception may have come while sentences of the batch were given slots.
std::vector<Sentence> Runner::take_unfinished() {
  std::vector<Sentence> sentences = std::move(preempted_);
  for (Slot& slot : slots_) {
    if (!slot.free) sentences.push_back(std::move(slot.sentence));
  }
  for (; !ahead_.used_up(); ++ahead_.next)
    sentences.push_back(std::move(ahead_.sentences[ahead_.next]));
  return sentences;
}

// Fills free slots from the batch that was encoded ahead. When all of its sentences have slots,
// encodes the next batch, beside the next steps.
void Runner::admit(SentenceInput& source) {
  while (!ahead_.used_up() || encode_ahead(source)) {
    if (!install()) return;
  }
}

// Encodes the next sentences, those that were preempted first. Waits for the source only if there
// is nothing else to do. Returns false if there are no sentences.
bool Runner::encode_ahead(SentenceInput& source) {
  ahead_ = {};
  std::int64_t tokens = 0;
  while (true) {
    const Sentence* next = preempted_.empty()
                               ? source.next(active_.empty() && ahead_.sentences.empty())
                               : &preempted_.back();
    if (!next) break;
    const auto length = static_cast<std::int64_t>(next->ids.size());
    if (!ahead_.sentences.empty() && tokens + length > encoder_tokens_) break;
    tokens += length;
    if (preempted_.empty()) {
      ahead_.sentences.push_back(source.take());
    } else {
      ahead_.sentences.push_back(std::move(preempted_.back()));
      preempted_.pop_back();
    }
  }
  if (ahead_.sentences.empty()) return false;
  std::vector<SourceSentence> sources;
  for (const Sentence& sentence : ahead_.sentences)
    sources.push_back({sentence.ids, limit_of(sentence)});
  // This batch is written to the memory from which the last one may still be installed.
  backend_.order(*queue_, *encoder_queue_);
  backend_.begin_work(*encoder_queue_, Work::kEncode);
  ahead_.encoded = model_.encode(*encoder_queue_, sources);
  backend_.end_work(*encoder_queue_, Work::kEncode);
  ++statistics_.batches;
  return true;
}

// Gives slots to the sentences of the batch in turn, as long as there are free slots, budget and
// pages. Returns false if sentences are left without a slot.
bool Runner::install() {
  const std::int64_t room = options_.batch_tokens - tokens_in_flight_;
  const std::int64_t share = options_.batch_tokens / options_.policy.refill_share;
  if (active_.empty()) awaited_ = 0;
  // Sentences that wait for pages get them before others begin.
  const bool full = room < share || awaited_ > 0 || !waiting_.empty();
  if (!active_.empty() && (!options_.refill || full)) return false;
  const std::size_t first = ahead_.next;
  std::vector<std::int32_t> slots;
  std::int64_t tokens = 0;
  for (; !ahead_.used_up() && !free_.empty(); ++ahead_.next) {
    Sentence& sentence = ahead_.sentences[ahead_.next];
    const auto length = static_cast<std::int64_t>(sentence.ids.size());
    const SourceSentence need{sentence.ids, limit_of(sentence)};
    const bool alone = active_.empty() && slots.empty();
    if (!alone && tokens + length > room) break;
    if (!alone && !caches_->has_room(need)) {
      awaited_ = std::min(share, (tokens_in_flight_ + tokens) / options_.policy.refill_share) / 2;
      break;
    }
    tokens += length;
    slots.push_back(free_.back());
    free_.pop_back();
    caches_->reserve(slots.back(), need);
    slots_[static_cast<std::size_t>(slots.back())] = {
        .free = false, .sentence = std::move(sentence), .first_step = now_, .limit = need.limit};
  }
  if (slots.empty()) return false;
  backend_.order(*encoder_queue_, *queue_);
  backend_.begin_work(*queue_, Work::kEncode);
  caches_->publish(*queue_);
  model_.install(*queue_, *ahead_.encoded, static_cast<std::int64_t>(first), slots);
  start(slots);
  backend_.end_work(*queue_, Work::kEncode);
  tokens_in_flight_ += tokens;
  active_.insert(active_.end(), slots.begin(), slots.end());
  return ahead_.used_up();
}

// A prompt's last token is the start token of its slot.
void Runner::start(const std::vector<std::int32_t>& slots) {
  std::vector<SlotStart> starts;
  std::vector<std::span<const std::int32_t>> before, prefixes;
  // The spans refer to these lists.
  std::vector<std::vector<std::int32_t>> lists;
  lists.reserve(slots.size());
  for (const std::int32_t index : slots) {
    const Slot& slot = slots_[static_cast<std::size_t>(index)];
    const Sentence& sentence = slot.sentence;
    const bool prompt = options_.context > 0;
    before.push_back(std::span(sentence.ids).first(prompt ? sentence.ids.size() - 1 : 0));
    prefixes.push_back(lists.emplace_back(prefix_of(sentence)));
    starts.push_back({.slot = index,
                      .limit = slot.limit,
                      .forced_first = forced_first_of(sentence),
                      .start = prompt ? sentence.ids.back() : options_.rules.start,
                      .tokens_before = static_cast<std::int32_t>(before.back().size()),
                      .prefix_tokens = static_cast<std::int32_t>(prefixes.back().size()),
                      .line = sentence.line,
                      .draw = sentence.draw});
  }
  search_->start(starts, before, prefixes);
}

std::int64_t Runner::steps_at_once() const {
  if (slots_.size() > 1) return 1;
  const Slot& only = slots_.front();
  return std::clamp<std::int64_t>(only.limit - steps_of(only), 1, options_.policy.steps_at_once);
}

void Runner::step(std::int64_t most) {
  const std::int64_t groups =
      std::min(backend_.padded_groups(static_cast<std::int64_t>(rows_.size())),
               static_cast<std::int64_t>(slots_.size()));
  if (rows_ != rows_told_) {
    std::vector<std::int32_t> listed = rows_;
    listed.resize(slots_.size(), -1);
    backend_.upload(*queue_, std::as_bytes(std::span(listed)), rows_device_.data());
    rows_told_ = rows_;
  }
  const StepRows rows{rows_device_.as<std::int32_t>(), groups, options_.rules.beams};
  backend_.begin_work(*queue_, Work::kDecode);
  const std::int64_t began = now_;
  advance(backend_.repeat(*queue_, groups, most, [&] { model_.step(rows, *search_); }));
  // The flags are read right behind the step, so that a backend may do both by one kernel.
  pending_steps_.push_back({began, search_->read_done()});
  backend_.end_work(*queue_, Work::kDecode);
  // A call may stand for several steps, of which only those that the sentence needed were run.
  // finish() counts them.
  if (now_ - began > 1) return;
  ++statistics_.steps;
  statistics_.rows += rows.rows();
  if (slots_.size() == 1) ++slots_.front().counted;
}

// Looks at the outcome of the oldest step, and passes the sentences that are done to `done`.
void Runner::settle(const Done& done) {
  const PendingStep pending = std::move(pending_steps_.front());
  pending_steps_.pop_front();
  const auto* flags = reinterpret_cast<const std::int32_t*>(pending.done->wait().data());
  std::vector<std::int32_t> leaving;
  for (const std::int32_t slot : active_) {
    // If the slot got its sentence after the step, the flag is that of the sentence before.
    if (slots_[static_cast<std::size_t>(slot)].first_step <= pending.step && flags[slot])
      leaving.push_back(slot);
  }
  if (leaving.empty()) return;
  std::vector<SearchResult> results = search_->collect(leaving);
  std::vector<Decoded> decoded;
  // An error is that of one line. The other lines are passed on before it is thrown.
  std::exception_ptr error;
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    try {
      decoded.push_back(finish(leaving[i], std::move(results[i])));
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  std::erase_if(active_,
                [&](std::int32_t slot) { return slots_[static_cast<std::size_t>(slot)].free; });
  done(std::move(decoded));
  if (error) std::rethrow_exception(error);
}

Decoded Runner::finish(std::int64_t slot, SearchResult result) {
  Slot& entry = slots_[static_cast<std::size_t>(slot)];
  if (result.not_finite() && options_.hands_over_overflows) {
    leave(static_cast<std::int32_t>(slot), false);
    return {.sentence = std::move(entry.sentence), .result = std::move(result)};
  }
  if (result.count() == 0) {
    throw NoContinuation(
        fmt::format("line {}: no continuation has a finite probability: logits of the network in "
                    "{} are infinite or not a number{}",
                    entry.sentence.line + 1, name_of(backend_.compute_type()),
                    result.not_finite() ? "" : ", or the rules of search forbid every token"),
        result.not_finite());
  }
  const std::int64_t source_tokens = entry.source_tokens(), length = result.best_length(),
                     steps = result.steps();
  const bool ended = result.best_ended(),
             hit_limit = length + prefix_tokens(entry.sentence) == entry.limit &&
                         (!ended || options_.rules.forced_end >= 0);
  statistics_.source_tokens += source_tokens;
  statistics_.target_tokens += length;
  statistics_.target_tokens_without_end += length - ended;
  statistics_.hit_limit += hit_limit;
  auto& bucket = statistics_.bucket_of(source_tokens);
  const std::int64_t row_steps = steps * options_.rules.beams;
  ++bucket.lines;
  bucket.source_tokens += source_tokens;
  bucket.target_tokens += length;
  bucket.row_steps += row_steps;
  statistics_.rows_useful += row_steps;
  if (slots_.size() == 1 && steps > entry.counted) {
    statistics_.steps += steps - entry.counted;
    statistics_.rows += (steps - entry.counted) * options_.rules.beams;
  }
  leave(static_cast<std::int32_t>(slot), true);
  return {
      .sentence = std::move(entry.sentence), .result = std::move(result), .hit_limit = hit_limit};
}

}  // namespace xlate
