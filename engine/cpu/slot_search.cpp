// Implements the rules of docs/search.md, by which the search of a sentence advances by one token.
#include "engine/cpu/slot_search.h"

#include <algorithm>
#include <cmath>

namespace xlate::cpu {
namespace {

// Returns n^A, by which a hypothesis's sum is divided for its final score.
float length_divisor(std::int32_t n, float penalty) {
  return static_cast<float>(std::pow(static_cast<double>(n), static_cast<double>(penalty)));
}

}  // namespace

SlotSearch::SlotSearch(const SearchRules& rules, const SearchState& state, std::int64_t slot)
    : rules_(rules),
      beams_(state.beams),
      token_(state.token + slot * beams_),
      score_(state.score + slot * beams_),
      length_(state.length[slot]),
      limit_(state.limit[slot]),
      forced_first_(state.forced_first[slot]),
      start_(state.start[slot]),
      before_(state.prompt ? std::span<const std::int32_t>(
                                 state.prompt + slot * state.longest_before,
                                 static_cast<std::size_t>(state.tokens_before[slot]))
                           : std::span<const std::int32_t>()),
      prefix_(state.prefix ? std::span<const std::int32_t>(
                                 state.prefix + slot * state.longest_prefix,
                                 static_cast<std::size_t>(state.prefix_tokens[slot]))
                           : std::span<const std::int32_t>()),
      draw_(state.draws ? state.draws[slot] : DrawName()),
      done_(state.done[slot]),
      history_(state.history + slot * state.longest * beams_),
      ancestor_(state.ancestor + slot * state.longest * beams_),
      finished_(state.finished + slot * beams_),
      finished_count_(state.finished_count[slot]) {}

std::int32_t SlotSearch::forced() const {
  if (length_ + 1 == limit_ && rules_.forced_end >= 0) return rules_.forced_end;
  if (length_ < prefix_tokens()) return prefix_[static_cast<std::size_t>(length_)];
  return length_ == 0 ? forced_first_ : -1;
}

// The token at position t entered the network under the beam ancestor[t], whose last token it was.
std::vector<std::int32_t> SlotSearch::ids_of(std::int64_t beam) const {
  std::vector<std::int32_t> ids(before_.begin(), before_.end());
  ids.push_back(start_);
  for (std::int64_t t = 1; t < length_; ++t)
    ids.push_back(history_[(t - 1) * beams_ + ancestor_[t * beams_ + beam]].token);
  if (length_ > 0) ids.push_back(token_[beam]);
  return ids;
}

void SlotSearch::advance(const std::vector<Candidate>& candidates) {
  const bool at_limit = ++length_ == limit_;
  const float divisor = length_divisor(length_ - prefix_tokens(), rules_.length_penalty);
  std::vector<Candidate> live;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const Candidate& candidate = candidates[i];
    const bool given = length_ <= prefix_tokens();
    if (!at_limit && (given || !rules_.is_end(candidate.node.token))) {
      if (live.size() < static_cast<std::size_t>(beams_)) live.push_back(candidate);
    } else if (i < static_cast<std::size_t>(beams_) && candidate.value > kWorthless) {
      add_finished({candidate.value / divisor, candidate.value, length_, candidate.node});
    }
  }
  done_ = at_limit || is_done(live.empty() ? kMinusInfinity : live.front().value, divisor);
  if (!done_) keep(live);
}

void SlotSearch::fail() {
  ++length_;
  done_ = 1;
  finished_count_ = kNotFinite;
}

// Keeps the list in descending order of scores. Among equal scores the older entry stays ahead.
void SlotSearch::add_finished(const Finished& entry) {
  if (finished_count_ == beams_ && !(entry.score > finished_[beams_ - 1].score)) return;
  std::int64_t at = finished_count_ < beams_ ? finished_count_++ : beams_ - 1;
  for (; at > 0 && entry.score > finished_[at - 1].score; --at) finished_[at] = finished_[at - 1];
  finished_[at] = entry;
}

bool SlotSearch::is_done(float best, float divisor) const {
  if (finished_count_ < beams_) return false;
  const float worst = finished_[beams_ - 1].score;
  // A greedy search ends with the first end token.
  switch (beams_ == 1 ? EarlyStopping::kTrue : rules_.early_stopping) {
    case EarlyStopping::kTrue:
      return true;
    case EarlyStopping::kFalse:
      return best / divisor <= worst;
    case EarlyStopping::kNever:
      return best / (rules_.length_penalty > 0
                         ? length_divisor(limit_ - prefix_tokens(), rules_.length_penalty)
                         : divisor) <=
             worst;
  }
  return true;
}

void SlotSearch::keep(const std::vector<Candidate>& live) {
  const std::int64_t row = length_ - 1;
  Node* nodes = history_ + row * beams_;
  for (std::int64_t k = 0; k < beams_; ++k) {
    // Where all but a few ids are forbidden there can be fewer continuations than beams. The other
    // beams get kDead as their score.
    const bool filled = k < static_cast<std::int64_t>(live.size());
    nodes[k] = filled ? live[static_cast<std::size_t>(k)].node : Node{rules_.start, 0};
    token_[k] = nodes[k].token;
    score_[k] = filled ? live[static_cast<std::size_t>(k)].value : kDead;
  }
  std::uint8_t moved[kMaxBeams];
  for (std::int64_t t = 0; t < row; ++t) {
    std::uint8_t* ancestors = ancestor_ + t * beams_;
    for (std::int64_t k = 0; k < beams_; ++k) moved[k] = ancestors[nodes[k].parent];
    std::copy_n(moved, beams_, ancestors);
  }
  for (std::int64_t k = 0; k < beams_; ++k)
    ancestor_[row * beams_ + k] = static_cast<std::uint8_t>(nodes[k].parent);
}

}  // namespace xlate::cpu
