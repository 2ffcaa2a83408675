// Starts sentences, advances them by a step, and collects what they found (docs/search.md), with a
// block for each sentence.
#include "engine/cuda/device.cuh"
#include "engine/cuda/search/advance.cuh"
#include "engine/cuda/search/search.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void advance_kernel(RulesView rules, RowCandidates best, StepRows rows,
                               SearchState state) {
  extern __shared__ std::int32_t memory[];
  SlotState& slot_state = *reinterpret_cast<SlotState*>(memory);
  const std::int64_t slot = rows.slots[blockIdx.x],
                     first = static_cast<std::int64_t>(blockIdx.x) * rules.beams;
  if (slot < 0 || state.done[slot]) return;
  load_slot_state(WholeBlock(), rules, best.count, state, slot, slot_state);
  const auto candidate = [&](int beam, int i) {
    return TokenValue{best.values[(first + beam) * best.count + i],
                      best.tokens[(first + beam) * best.count + i]};
  };
  advance_slot<kMaxBeams>(WholeBlock(), rules, candidate, best.count, state, slot, slot_state);
}

__global__ void start_kernel(RulesView rules, const SlotStart* starts, SearchState state) {
  const SlotStart start = starts[blockIdx.x];
  const std::int64_t slot = start.slot;
  for (int k = threadIdx.x; k < rules.beams; k += blockDim.x) {
    state.token[slot * rules.beams + k] = start.start;
    // Each group begins with one hypothesis.
    state.score[slot * rules.beams + k] = k % (rules.beams / rules.beam_groups) == 0 ? 0.0f : kDead;
  }
  for (int b = threadIdx.x; state.group_done && b < rules.beam_groups; b += blockDim.x)
    state.group_done[slot * rules.beam_groups + b] =
        state.group_finished_count[slot * rules.beam_groups + b] = 0;
  if (threadIdx.x != 0) return;
  state.length[slot] = 0;
  state.limit[slot] = start.limit;
  state.forced_first[slot] = start.forced_first;
  state.start[slot] = start.start;
  if (state.tokens_before) state.tokens_before[slot] = start.tokens_before;
  if (state.prefix) state.prefix_tokens[slot] = start.prefix_tokens;
  if (state.draws) state.draws[slot] = {start.line, start.draw, 0};
  state.done[slot] = 0;
  state.finished_count[slot] = 0;
}

__global__ void collect_kernel(const std::int32_t* slots, SearchState state, char* records,
                               std::int64_t stride) {
  const std::int64_t slot = slots[blockIdx.x], beams = state.beams;
  char* record = records + blockIdx.x * stride;
  const std::int32_t length = state.length[slot];
  if (threadIdx.x == 0) {
    *reinterpret_cast<SearchRecord*>(record) = {state.finished_count[slot], length,
                                                state.prefix ? state.prefix_tokens[slot] : 0};
  }
  auto* finished = reinterpret_cast<Finished*>(record + sizeof(SearchRecord));
  for (std::int64_t k = threadIdx.x; k < state.finished_count[slot]; k += blockDim.x)
    finished[k] = state.finished[slot * beams + k];
  // The last row of the history was never written, because the tokens that were chosen last are in
  // the finished list.
  auto* history = reinterpret_cast<Node*>(finished + beams);
  for (std::int64_t i = threadIdx.x; i < (length - 1) * beams; i += blockDim.x)
    history[i] = state.history[slot * state.longest * beams + i];
}

}  // namespace

void start_slots(const RulesView& rules, const SlotStart* starts, std::int64_t count,
                 const SearchState& state, cudaStream_t stream) {
  if (count > 0)
    start_kernel<<<static_cast<unsigned>(count), kWarp, 0, stream>>>(rules, starts, state);
}

void advance_slots(const RulesView& rules, const RowCandidates& best, const StepRows& rows,
                   const SearchState& state, cudaStream_t stream) {
  const std::size_t shared = slot_state_bytes(best.count, rules.beams);
  advance_kernel<<<static_cast<unsigned>(rows.groups), (rules.beams > 8 ? kThreads : 2 * kWarp),
                   shared, stream>>>(rules, best, rows, state);
}

void collect_slots(const std::int32_t* slots, std::int64_t count, const SearchState& state,
                   void* records, std::int64_t stride, cudaStream_t stream) {
  if (count > 0)
    collect_kernel<<<static_cast<unsigned>(count), 64, 0, stream>>>(
        slots, state, static_cast<char*>(records), stride);
}

}  // namespace xlate::cuda
