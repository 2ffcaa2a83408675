// Advances the sentences of a diverse beam search by a step (docs/search.md). A block processes one
// sentence. Its groups of beams choose their hypotheses one after another, because each looks at
// the ids that those before it have chosen.
#include "engine/cuda/device.cuh"
#include "engine/cuda/search/advance.cuh"
#include "engine/cuda/search/search.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = 256;

// Views a group's part of a step. The live hypotheses before `first` are those that earlier groups
// have chosen in this step. Those of groups that are done have kDead as their score, as no
// hypothesis that was chosen has.
struct GroupStep {
  const RulesView& rules;
  const RowCandidates& best;  // It has the candidates of the sentence's rows.
  const float* scores;        // [K]
  const Candidate* live;
  std::int32_t forced;
  int first, beams;

  __device__ int per_row() const { return forced >= 0 ? 1 : best.count; }
  // Returns candidate i of a beam before earlier groups take anything from it, which never adds to
  // it. In this form they are in descending order.
  __device__ Candidate whole(int beam, int i) const {
    if (forced >= 0) return {scores[beam], {forced, beam}};
    const std::int64_t at = static_cast<std::int64_t>(beam) * best.count + i;
    return {scores[beam] + best.values[at], {best.tokens[at], beam}};
  }
  __device__ float value(const Candidate& candidate, int i) const {
    if (forced >= 0) return candidate.value;
    int times = 0;
    for (int k = 0; k < first; ++k)
      times += live[k].node.token == candidate.node.token && live[k].value > kWorthless;
    const int beam = candidate.node.parent;
    const float log_probability = best.values[static_cast<std::int64_t>(beam) * best.count + i];
    return scores[beam] +
           __fsub_rn(log_probability, __fmul_rn(rules.diversity, static_cast<float>(times)));
  }
  // Returns how many of the group's candidates come before this one, or `most` if there are more.
  __device__ int place_of(const Candidate& mine, int most) const {
    int place = 0;
    for (int beam = first; beam < first + beams && place < most; ++beam) {
      for (int j = 0; j < per_row() && place < most; ++j) {
        Candidate other = whole(beam, j);
        if (!(other.value >= mine.value)) break;
        other.value = value(other, j);
        place += other.value > mine.value ||
                 (other.value == mine.value &&
                  (beam != mine.node.parent ? beam < mine.node.parent
                                            : other.node.token < mine.node.token));
      }
    }
    return place;
  }
};

// Ranks the group's candidates by the threads of the block. Returns how many there are, of which
// the first `count` are in `ordered`.
__device__ int rank(const GroupStep& group, int count, Candidate* ordered) {
  int found = 0;
  const int per_row = group.per_row();
  for (int base = 0; base < group.beams * per_row; base += blockDim.x) {
    const int i = base + threadIdx.x;
    bool any = false;
    if (i < group.beams * per_row) {
      Candidate mine = group.whole(group.first + i / per_row, i % per_row);
      mine.value = group.value(mine, i % per_row);
      any = mine.value > kMinusInfinity;
      const int place = any ? group.place_of(mine, count) : count;
      if (place < count) ordered[place] = mine;
    }
    found += __syncthreads_count(any);
  }
  return found;
}

// Makes one list of the groups' finished lists, best first, by one thread. Among equal scores the
// hypothesis of an earlier group comes first. Returns their number.
__device__ std::int32_t merge_groups(const std::int32_t* counts, int groups, int beams,
                                     Finished* finished) {
  std::int32_t all = 0;
  for (int group = 0; group < groups; ++group) {
    for (int i = 0; i < counts[group]; ++i) {
      const Finished entry = finished[group * beams + i];
      // The place of an entry is never behind its own, so that no other one is overwritten.
      add_finished(entry, finished, all, groups * beams);
    }
  }
  return all;
}

__global__ void __launch_bounds__(kThreads)
    advance_groups_kernel(RulesView rules, RowCandidates best, StepRows rows, SearchState state) {
  extern __shared__ std::int32_t memory[];
  SlotState& slot_state = *reinterpret_cast<SlotState*>(memory);
  const std::int64_t slot = rows.slots[blockIdx.x],
                     first_row = static_cast<std::int64_t>(blockIdx.x) * rules.beams;
  if (slot < 0 || state.done[slot]) return;
  load_slot_state(WholeBlock(), rules, best.count, state, slot, slot_state);
  __syncthreads();
  const std::int32_t length = slot_state.length;
  best.values += first_row * best.count, best.tokens += first_row * best.count;
  // A group has this many beams and candidates.
  const int beams = rules.beams / rules.beam_groups, count = best.count / rules.beam_groups;
  Candidate* live = slot_state.live(best.count);
  Finished* finished = slot_state.finished(best.count, rules.beams);
  std::int32_t* counts = state.group_finished_count + slot * rules.beam_groups;
  std::int32_t* dones = state.group_done + slot * rules.beam_groups;
  GroupStep group{rules,
                  best,
                  slot_state.scores(best.count, rules.beams),
                  live,
                  length + 1 == slot_state.limit && rules.forced_end >= 0 ? rules.forced_end
                                                                          : slot_state.forced,
                  0,
                  beams};
  bool all_done = true, overflow = false;
  for (int k = threadIdx.x; k < rules.beams; k += kThreads) {
    // The values of a row are NaN where a logit is +∞ or NaN.
    overflow |= group.scores[k] > kWorthless &&
                isnan(best.values[static_cast<std::int64_t>(k) * best.count]);
  }
  if (__syncthreads_or(overflow)) {
    if (threadIdx.x == 0) {
      state.length[slot] = length + 1;
      state.done[slot] = 1;
      state.finished_count[slot] = kNotFinite;
    }
    return;
  }
  for (int g = 0; g < rules.beam_groups; ++g) {
    group.first = g * beams;
    bool done = dones[g];
    if (done) {
      for (int k = threadIdx.x; k < beams; k += kThreads)
        live[group.first + k] = {kDead, {rules.start, 0}};
    } else {
      const int found = rank(group, count, slot_state.ordered());
      __syncthreads();
      if (threadIdx.x == 0) {
        std::int32_t finished_count = counts[g];
        dones[g] = slot_state.done =
            choose(rules, slot_state, slot_state.ordered(), min(found, count), beams,
                   live + group.first, finished + group.first, finished_count);
        counts[g] = finished_count;
      }
      __syncthreads();
      done = slot_state.done;
    }
    __syncthreads();
    all_done = all_done && done;
  }
  if (threadIdx.x == 0) {
    state.length[slot] = length + 1;
    state.done[slot] = all_done;
    if (all_done)
      state.finished_count[slot] = merge_groups(counts, rules.beam_groups, beams, finished);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < rules.beams; k += kThreads)
    state.finished[slot * rules.beams + k] = finished[k];
  if (!all_done) keep_live<kMaxBeams>(WholeBlock(), live, rules.beams, length, state, slot);
}

}  // namespace

void advance_groups(const RulesView& rules, const RowCandidates& best, const StepRows& rows,
                    const SearchState& state, cudaStream_t stream) {
  advance_groups_kernel<<<static_cast<unsigned>(rows.groups), kThreads,
                          slot_state_bytes(best.count, rules.beams), stream>>>(rules, best, rows,
                                                                               state);
}

}  // namespace xlate::cuda
