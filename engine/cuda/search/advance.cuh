// Advances the search of one sentence by a step, by the threads of a team, which is a whole block
// or a part of one. They rank the candidates and update the slot's state (docs/search.md, steps 2
// to 5).
#pragma once

#include "engine/cuda/device.cuh"

namespace xlate::cuda {

constexpr float kMinusInfinity = -INFINITY;
constexpr float kDead = -1e9f;
constexpr float kWorthless = -1e8f;

__device__ inline float length_divisor(std::int32_t n, float penalty) {
  // This is the result of pow, without the time that pow takes.
  if (penalty == 1) return static_cast<float>(n);
  return static_cast<float>(pow(static_cast<double>(n), static_cast<double>(penalty)));
}

__device__ inline bool is_end(const RulesView& rules, std::int32_t token) {
  if (token == rules.end) return true;
  for (int i = 0; i < rules.other_ends_count; ++i)
    if (token == rules.other_ends[i]) return true;
  return false;
}

struct Candidate {
  float value;
  Node node;
};

// Inserts an entry into the list, which is in descending order of scores. Among equal scores the
// older entry stays ahead.
__device__ inline void add_finished(const Finished& entry, Finished* finished, std::int32_t& count,
                                    int beams) {
  if (count == beams && !(entry.score > finished[beams - 1].score)) return;
  int at = count < beams ? count++ : beams - 1;
  for (; at > 0 && entry.score > finished[at - 1].score; --at) finished[at] = finished[at - 1];
  finished[at] = entry;
}

// `finished` is the list of a group of `beams` beams.
__device__ inline bool is_done(const RulesView& rules, const Finished* finished, std::int32_t count,
                               int beams, float best, float divisor, std::int32_t limit) {
  if (count < beams) return false;
  const float worst = finished[beams - 1].score;
  if (rules.beams == 1 || rules.early_stopping == EarlyStopping::kTrue) return true;
  if (rules.early_stopping == EarlyStopping::kFalse || !(rules.length_penalty > 0))
    return best / divisor <= worst;
  return best / length_divisor(limit, rules.length_penalty) <= worst;
}

// SlotState is what a step holds of a slot's state in shared memory. It is followed by the ordered
// candidates [count], the live ones [K], the finished list [K] and the scores [K].
struct SlotState {
  std::int32_t length, limit, forced, prefix_tokens, finished_count;
  // `overflow` is true if a logit of a live hypothesis is +∞ or not a number.
  int filled, overflow, done;
  __device__ Candidate* ordered() { return reinterpret_cast<Candidate*>(this + 1); }
  __device__ Candidate* live(int count) { return ordered() + count; }
  __device__ Finished* finished(int count, int beams) {
    return reinterpret_cast<Finished*>(live(count) + beams);
  }
  __device__ float* scores(int count, int beams) {
    return reinterpret_cast<float*>(finished(count, beams) + beams);
  }
};
// WholeBlock is the team of all threads of a block.
struct WholeBlock {
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ void sync() const { __syncthreads(); }
};

inline std::size_t slot_state_bytes(int count, int beams) {
  return sizeof(SlotState) + static_cast<std::size_t>(count + beams) * sizeof(Candidate) +
         static_cast<std::size_t>(beams) * (sizeof(Finished) + sizeof(float));
}

template <class Team>
__device__ void load_slot_state(const Team& team, const RulesView& rules, int count,
                                const SearchState& state, std::int64_t slot,
                                SlotState& slot_state) {
  const int beams = rules.beams;
  if (team.thread() == 0) {
    const std::int32_t length = state.length[slot],
                       prefix = state.prefix ? state.prefix_tokens[slot] : 0;
    slot_state.length = length, slot_state.limit = state.limit[slot];
    slot_state.prefix_tokens = prefix;
    slot_state.forced = length < prefix ? state.prefix[slot * state.longest_prefix + length]
                        : length == 0   ? state.forced_first[slot]
                                        : -1;
    slot_state.finished_count = state.finished_count[slot];
    slot_state.filled = slot_state.overflow = 0;
  }
  for (int k = team.thread(); k < beams; k += team.threads()) {
    slot_state.scores(count, beams)[k] = state.score[slot * beams + k];
    slot_state.finished(count, beams)[k] = state.finished[slot * beams + k];
  }
}

// Chooses a group's live and finished hypotheses from its candidates, which are ordered, by one
// thread. Returns whether the group is done.
__device__ inline bool choose(const RulesView& rules, const SlotState& slot_state,
                              const Candidate* ordered, int candidates, int beams, Candidate* live,
                              Finished* finished, std::int32_t& finished_count) {
  const std::int32_t n = slot_state.length + 1, prefix = slot_state.prefix_tokens;
  const bool at_limit = n == slot_state.limit;
  const float divisor = length_divisor(n - prefix, rules.length_penalty);
  int live_count = 0;
  for (int i = 0; i < candidates; ++i) {
    const Candidate& c = ordered[i];
    const bool ends = n > prefix && is_end(rules, c.node.token);
    if (!ends && live_count < beams) live[live_count++] = c;
    if ((ends || at_limit) && i < beams && c.value > kWorthless)
      add_finished({c.value / divisor, c.value, n, c.node}, finished, finished_count, beams);
  }
  for (int k = live_count; k < beams; ++k) live[k] = {kDead, {rules.start, 0}};
  return at_limit || is_done(rules, finished, finished_count, beams,
                             live_count > 0 ? live[0].value : kMinusInfinity, divisor,
                             slot_state.limit - prefix);
}

// Makes the live hypotheses those of the slot, which has `length` tokens before this step.
template <int kBeams, class Team>
__device__ void keep_live(const Team& team, const Candidate* live, int beams, std::int32_t length,
                          const SearchState& state, std::int64_t slot) {
  for (int k = team.thread(); k < beams; k += team.threads()) {
    state.token[slot * beams + k] = live[k].node.token;
    state.score[slot * beams + k] = live[k].value;
    state.history[(slot * state.longest + length) * beams + k] = live[k].node;
    state.ancestor[(slot * state.longest + length) * beams + k] =
        static_cast<std::uint8_t>(live[k].node.parent);
  }
  // Each thread moves whole rows of the table, so that it reads no entry that another thread has
  // overwritten.
  for (int t = team.thread(); t < length; t += team.threads()) {
    std::uint8_t* ancestors = state.ancestor + (slot * state.longest + t) * beams;
    std::uint8_t moved[kBeams];
#pragma unroll(kBeams <= 8 ? kBeams : 1)
    for (int k = 0; k < kBeams; ++k) {
      if (k >= beams) break;
      moved[k] = ancestors[live[k].node.parent];
    }
#pragma unroll(kBeams <= 8 ? kBeams : 1)
    for (int k = 0; k < kBeams; ++k) {
      if (k >= beams) break;
      ancestors[k] = moved[k];
    }
  }
}

// Advances a slot that is not done and whose state load_slot_state has loaded, with at most kBeams
// beams. best(k, i) returns the log-probability and the token of candidate i of hypothesis k, of
// `count`, best first, or NaN if a logit is +∞ or NaN. All threads of the team call this function.
template <int kBeams, class Team, class Best>
__device__ void advance_slot(const Team& team, const RulesView& rules, const Best& best, int count,
                             const SearchState& state, std::int64_t slot, SlotState& slot_state) {
  const int beams = rules.beams;
  Candidate *ordered = slot_state.ordered(), *live = slot_state.live(count);
  Finished* finished = slot_state.finished(count, beams);
  const float* scores = slot_state.scores(count, beams);
  team.sync();
  const std::int32_t length = slot_state.length, limit = slot_state.limit;
  const std::int32_t forced =
      length + 1 == limit && rules.forced_end >= 0 ? rules.forced_end : slot_state.forced;
  const int per_row = forced >= 0 ? 1 : count, total = beams * per_row;
  const auto candidate = [&](int beam, int i) {
    if (forced >= 0) return Candidate{scores[beam], {forced, beam}};
    const auto [value, token] = best(beam, i);
    return Candidate{scores[beam] + value, {token, beam}};
  };
  for (int k = team.thread(); k < beams; k += team.threads()) {
    // The values of a row are NaN where its log-sum is.
    if (scores[k] > kWorthless && isnan(best(k, 0).value)) atomicExch(&slot_state.overflow, 1);
  }
  for (int i = team.thread(); i < total; i += team.threads()) {
    const Candidate mine = candidate(i / per_row, i % per_row);
    if (!(mine.value > kMinusInfinity)) continue;
    atomicAdd(&slot_state.filled, 1);
    int place = 0;
    for (int beam = 0; beam < beams && place < count; ++beam) {
      // The candidates of a hypothesis are in descending order, though rounded sums of different
      // candidates may be equal.
      for (int j = 0; j < per_row; ++j) {
        const Candidate other = candidate(beam, j);
        if (!(other.value >= mine.value)) break;
        place += other.value > mine.value ||
                 (beam != mine.node.parent ? beam < mine.node.parent
                                           : other.node.token < mine.node.token);
      }
    }
    if (place < count) ordered[place] = mine;
  }
  team.sync();

  if (team.thread() == 0) {
    std::int32_t finished_count = slot_state.finished_count;
    const bool done =
        slot_state.overflow || choose(rules, slot_state, ordered, min(slot_state.filled, count),
                                      beams, live, finished, finished_count);
    slot_state.done = state.done[slot] = done;
    if (slot_state.overflow) finished_count = kNotFinite;
    slot_state.finished_count = state.finished_count[slot] = finished_count;
    state.length[slot] = length + 1;
  }
  team.sync();
  for (int k = team.thread(); k < slot_state.finished_count; k += team.threads())
    state.finished[slot * beams + k] = finished[k];
  if (slot_state.done) return;

  keep_live<kBeams>(team, live, beams, length, state, slot);
}

}  // namespace xlate::cuda
