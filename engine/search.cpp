// Implements Search: makes its arrays, calls the backend, and follows the back-pointers of finished
// hypotheses.
#include "engine/search.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"

namespace xlate {
namespace {

template <class T>
std::span<const std::byte> bytes_of(const T* data, std::int64_t count) {
  return {reinterpret_cast<const std::byte*>(data), static_cast<std::size_t>(count) * sizeof(T)};
}

// Only these two rules read the ids of a prompt.
bool keeps_prompts(const SearchRules& rules) {
  return rules.no_repeat_ngram > 0 || rules.repetition_penalty != 1;
}

}  // namespace

template <class T>
T* Search::carve(std::int64_t count) {
  buffers_.push_back(backend_.allocate(static_cast<std::size_t>(count) * sizeof(T)));
  return buffers_.back().as<T>();
}

Search::Search(Backend& backend, Queue& queue, const SearchRules& rules, std::int64_t slots,
               std::int64_t longest, std::int64_t longest_before, std::int64_t longest_prefix)
    : backend_(backend),
      queue_(queue),
      reading_(backend.make_queue()),
      rules_(rules),
      ends_(std::make_shared<std::vector<std::int32_t>>(rules.ends)) {
  if (rules.beams < 1 || rules.beams > kMaxBeams)
    fail("beam size is {}, expected 1 to {}", rules.beams, kMaxBeams);
  if (rules.beam_groups < 1 || rules.beams % rules.beam_groups != 0)
    fail("{} groups of beams, expected a divisor of the beam size {}", rules.beam_groups,
         rules.beams);
  if (rules.sampling && rules.beams != 1)
    fail("beam size is {}, expected 1 where tokens are drawn", rules.beams);
  if (rules.ends.size() > kMaxEnds)
    fail("{} end tokens, expected at most {}", rules.ends.size(), kMaxEnds);
  const std::int64_t beams = rules.beams;
  state_ = {.token = carve<std::int32_t>(slots * beams),
            .score = carve<float>(slots * beams),
            .length = carve<std::int32_t>(slots),
            .limit = carve<std::int32_t>(slots),
            .forced_first = carve<std::int32_t>(slots),
            .start = carve<std::int32_t>(slots),
            .done = carve<std::int32_t>(slots),
            .history = carve<Node>(slots * longest * beams),
            .ancestor = carve<std::uint8_t>(slots * longest * beams),
            .finished = carve<Finished>(slots * beams),
            .finished_count = carve<std::int32_t>(slots),
            .slots = slots,
            .beams = beams,
            .longest = longest,
            .longest_before = keeps_prompts(rules) ? longest_before : 0,
            .longest_prefix = longest_prefix};
  if (state_.longest_before > 0) {
    state_.prompt = carve<std::int32_t>(slots * longest_before);
    state_.tokens_before = carve<std::int32_t>(slots);
  }
  if (rules.sampling) state_.draws = carve<DrawName>(slots);
  if (rules.beam_groups > 1) {
    state_.group_finished_count = carve<std::int32_t>(slots * rules.beam_groups);
    state_.group_done = carve<std::int32_t>(slots * rules.beam_groups);
  }
  if (longest_prefix > 0) {
    state_.prefix = carve<std::int32_t>(slots * longest_prefix);
    state_.prefix_tokens = carve<std::int32_t>(slots);
  }
}

std::int64_t Search::bytes_per_slot(const SearchRules& rules, std::int64_t longest,
                                    std::int64_t longest_before, std::int64_t longest_prefix) {
  constexpr auto kNode = static_cast<std::int64_t>(sizeof(Node) + sizeof(std::uint8_t)),
                 kBeam = static_cast<std::int64_t>(sizeof(Finished) + 8);
  constexpr std::int64_t kId = sizeof(std::int32_t), kArrays = 6;
  const std::int64_t prompt = keeps_prompts(rules) ? longest_before + 1 : 0,
                     prefix = longest_prefix > 0 ? longest_prefix + 1 : 0,
                     groups = rules.beam_groups > 1 ? 2 * rules.beam_groups : 0,
                     draws = rules.sampling ? sizeof(DrawName) : 0;
  return rules.beams * (longest * kNode + kBeam) + (kArrays + prompt + prefix + groups) * kId +
         draws;
}

void Search::start(std::span<const SlotStart> starts,
                   std::span<const std::span<const std::int32_t>> before,
                   std::span<const std::span<const std::int32_t>> prefixes) {
  backend_.start_slots(queue_, rules_, starts, state_);
  const auto upload = [&](std::span<const std::span<const std::int32_t>> lists, std::int32_t* ids,
                          std::int64_t longest) {
    for (std::size_t i = 0; ids && i < lists.size(); ++i)
      backend_.upload(queue_, std::as_bytes(lists[i]), ids + starts[i].slot * longest);
  };
  upload(before, state_.prompt, state_.longest_before);
  upload(prefixes, state_.prefix, state_.longest_prefix);
}

void Search::step(const Program& program, const Workspace& workspace, const PagedCaches& caches,
                  const StepRows& rows, const Projection& projection) {
  backend_.decode(queue_, program, workspace, {state_, rows, caches}, projection, rules_);
}

void Search::step(Tensor hidden, const StepRows& rows, const Projection& projection) {
  backend_.search_step(queue_, hidden, projection, rules_, rows, state_);
}

std::unique_ptr<PendingRead> Search::read_done() {
  return backend_.read_later(queue_, bytes_of(state_.done, state_.slots));
}

// Copies only the part of each record that the sentence's length fills, because the memory of all
// records of a call is kept until text has been made of the last of them.
std::vector<SearchResult> Search::collect(std::span<const std::int32_t> slots) {
  const auto ticket = backend_.collect(*reading_, slots, state_);
  const std::byte* records = ticket->wait().data();
  const std::int64_t stride = SearchRecord::bytes(state_.beams, state_.longest);
  const auto filled = [&](std::int64_t i) {
    return SearchRecord::bytes(state_.beams,
                               reinterpret_cast<const SearchRecord*>(records + i * stride)->length);
  };
  std::int64_t bytes = 0;
  for (std::int64_t i = 0; i < std::ssize(slots); ++i) bytes += filled(i);
  const std::shared_ptr<std::byte[]> memory =
      std::make_shared_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes));
  std::vector<SearchResult> results;
  results.reserve(slots.size());
  std::byte* to = memory.get();
  for (std::int64_t i = 0; i < std::ssize(slots); to += filled(i), ++i) {
    std::memcpy(to, records + i * stride, static_cast<std::size_t>(filled(i)));
    results.emplace_back(memory, reinterpret_cast<const SearchRecord*>(to), state_.beams, ends_);
  }
  return results;
}

bool SearchResult::has_ended(const Finished& finished) const {
  return std::find(ends_->begin(), ends_->end(), finished.last.token) != ends_->end();
}

// Follows the back-pointers from the last node of a finished hypothesis. The history behind the
// finished list is [length − 1, K].
Hypothesis SearchResult::trace(const Finished& entry) const {
  Hypothesis result{.ids = std::vector<std::int32_t>(static_cast<std::size_t>(entry.length)),
                    .score = entry.score,
                    .sum = entry.sum,
                    .length = entry.length - record_->prefix_tokens,
                    .ended = has_ended(entry)};
  const auto* history = reinterpret_cast<const Node*>(finished() + beams_);
  Node node = entry.last;
  for (std::int32_t t = entry.length - 1;; --t) {
    result.ids[static_cast<std::size_t>(t)] = node.token;
    if (t == 0) break;
    node = history[(t - 1) * beams_ + node.parent];
  }
  if (result.ended) {
    result.end = result.ids.back();
    result.ids.pop_back();
  }
  return result;
}

std::vector<Hypothesis> SearchResult::hypotheses(std::int32_t most) const {
  std::vector<Hypothesis> hypotheses;
  for (std::int32_t k = 0; k < std::min(most, count()); ++k)
    hypotheses.push_back(trace(finished()[k]));
  return hypotheses;
}

}  // namespace xlate
