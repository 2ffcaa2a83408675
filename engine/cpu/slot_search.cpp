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
      group_beams_(rules.group_beams()),
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
      finished_count_(state.finished_count[slot]),
      group_finished_count_(state.group_finished_count
                                ? state.group_finished_count + slot * rules.beam_groups
                                : &finished_count_),
      group_done_(state.group_done ? state.group_done + slot * rules.beam_groups : &done_) {}

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

void SlotSearch::advance(const std::function<std::vector<Candidate>(BeamGroup)>& candidates_of) {
  std::vector<Candidate> live;
  for (std::int64_t group = 0; group < rules_.beam_groups; ++group) {
    if (!group_done_[group])
      advance_group(group, candidates_of({group * group_beams_, group_beams_}), live);
    // Where all but a few ids are forbidden there can be fewer continuations than beams. The other
    // beams, and those of a group that is done, get kDead as their score.
    live.resize(static_cast<std::size_t>((group + 1) * group_beams_), {kDead, {rules_.start, 0}});
  }
  ++length_;
  if (rules_.beam_groups > 1) {
    done_ = std::all_of(group_done_, group_done_ + rules_.beam_groups,
                        [](std::int32_t done) { return done != 0; });
    if (done_) merge_groups();
  }
  if (!done_) keep(live);
}

// Appends the group's live hypotheses to `live`.
void SlotSearch::advance_group(std::int64_t group, const std::vector<Candidate>& candidates,
                               std::vector<Candidate>& live) {
  const std::int32_t n = length_ + 1;
  const bool at_limit = n == limit_, given = n <= prefix_tokens();
  const float divisor = length_divisor(n - prefix_tokens(), rules_.length_penalty);
  const std::size_t first = live.size();
  for (std::int64_t i = 0; i < std::ssize(candidates); ++i) {
    const Candidate& candidate = candidates[static_cast<std::size_t>(i)];
    const bool ends = !given && rules_.is_end(candidate.node.token);
    if (!ends && std::ssize(live) - static_cast<std::int64_t>(first) < group_beams_) {
      live.push_back(candidate);
      if (candidate.value > kWorthless) chosen_.push_back(candidate.node.token);
    }
    if ((ends || at_limit) && i < group_beams_ && candidate.value > kWorthless)
      add_finished(group, {candidate.value / divisor, candidate.value, n, candidate.node});
  }
  const float best = first < live.size() ? live[first].value : kMinusInfinity;
  group_done_[group] = at_limit || is_done(group, best, divisor);
}

void SlotSearch::fail() {
  ++length_;
  done_ = 1;
  finished_count_ = kNotFinite;
}

// Keeps the group's list in descending order of scores. Among equal scores the older entry stays
// ahead.
void SlotSearch::add_finished(std::int64_t group, const Finished& entry) {
  Finished* list = finished_ + group * group_beams_;
  std::int32_t& count = group_finished_count_[group];
  if (count == group_beams_ && !(entry.score > list[count - 1].score)) return;
  std::int64_t at = count < group_beams_ ? count++ : count - 1;
  for (; at > 0 && entry.score > list[at - 1].score; --at) list[at] = list[at - 1];
  list[at] = entry;
}

bool SlotSearch::is_done(std::int64_t group, float best, float divisor) const {
  if (group_finished_count_[group] < group_beams_) return false;
  const float worst = finished_[(group + 1) * group_beams_ - 1].score;
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

// Makes one list of the groups' finished lists, best first. Among equal scores the hypothesis of an
// earlier group comes first.
void SlotSearch::merge_groups() {
  finished_count_ = 0;
  for (std::int64_t group = 0; group < rules_.beam_groups; ++group) {
    std::copy_n(finished_ + group * group_beams_, group_finished_count_[group],
                finished_ + finished_count_);
    finished_count_ += group_finished_count_[group];
  }
  std::stable_sort(finished_, finished_ + finished_count_,
                   [](const Finished& a, const Finished& b) { return a.score > b.score; });
}

void SlotSearch::keep(const std::vector<Candidate>& live) {
  const std::int64_t row = length_ - 1;
  Node* nodes = history_ + row * beams_;
  for (std::int64_t k = 0; k < beams_; ++k) {
    nodes[k] = live[static_cast<std::size_t>(k)].node;
    token_[k] = nodes[k].token;
    score_[k] = live[static_cast<std::size_t>(k)].value;
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
