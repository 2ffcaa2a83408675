// This file has the solo kernel's step of search, which block 0 runs when the blocks of the
// vocabulary have found their candidates, and the signals between it and them.
#pragma once

#include "engine/cuda/search/advance.cuh"
#include "engine/cuda/solo/mailbox.cuh"
#include "engine/cuda/solo/vocabulary.cuh"

namespace xlate::cuda {

__device__ inline unsigned load_acquire(const unsigned* signal) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(signal) : "memory");
  return value;
}
__device__ inline void store_release(unsigned* signal, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(signal), "r"(value) : "memory");
}
__device__ inline void add_release(unsigned* signal) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(signal) : "memory");
}

// Returns whether this block computes layers.
__device__ inline bool computes_layers(const SoloArgs& args) {
  return static_cast<int>(blockIdx.x) < args.layer_blocks;
}
// Returns whether this block is the one that searches.
__device__ inline bool searches() { return blockIdx.x == 0; }

// Runs the steps of search of a launch. All threads that compute layers call it.
template <class T>
class SoloSearch {
 public:
  __device__ SoloSearch(const SoloArgs& args, SoloBlock& block, char* memory, int slot)
      : args_(args), block_(block), memory_(memory), slot_(slot) {}

  // One thread calls it before the first step.
  __device__ void begin() {
    if (searches()) blocks_done_before_ = load_acquire(&args_.signals->blocks_done);
  }
  // Publishes the hidden rows for the blocks of the vocabulary, and runs the step of search on
  // block 0.
  __device__ void run(int time) const {
    if (!searches()) return;
    publish(time);
    advance(time);
    __threadfence();
    sync_workers();
  }
  // Sends the outcome of a step of search to all blocks of the cluster. Where there are several,
  // the first block of each other cluster waits for what block 0 posts. One warp calls it.
  template <int kBlocks>
  __device__ __forceinline__ void share_result(const Exchange<kBlocks>& exchange) const {
    exchange.begin(kResultBytes);
    if (rank_in_cluster() != 0) return;
    if (args_.wide) post_result(exchange.count);
    __syncwarp();
    for (int i = threadIdx.x % kWarp; i < kResultBytes / 16 * kBlocks; i += kWarp) {
      exchange.send_one(shared_address(&block_.step_result) + i / kBlocks * 16,
                        reinterpret_cast<const uint4*>(&block_.step_result)[i / kBlocks]);
    }
  }
  // Tells the blocks of the vocabulary that there are no more steps. One thread calls it.
  __device__ void end() const {
    if (searches()) store_release(&args_.signals->hidden, args_.launch << 8 | kSoloStop);
  }

 private:
  // So many bytes of a SoloStepResult have all that is in use.
  static constexpr int kResultBytes = 3 * 16;
  static_assert(kResultBytes <= sizeof(SoloStepResult) && kResultBytes / 4 <= kWarp);

  // Posts the outcome, or waits for it.
  __device__ __forceinline__ void post_result(unsigned number) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (lane >= kResultBytes / 4) return;
    std::uint64_t* const at = args_.post.words + kSoloAreas * args_.post.area + lane;
    auto* const own = reinterpret_cast<std::uint32_t*>(&block_.step_result) + lane;
    const unsigned flag = args_.post.flag + number;
    if (searches()) return post_word(at, *own, flag);
    std::uint64_t word;
    do {
      word = posted_word(at);
    } while (!has_flag(word, flag));
    *own = static_cast<std::uint32_t>(word);
  }
  // Writes the hidden rows to memory and says that they are there.
  __device__ __forceinline__ void publish(int time) const {
    const int vectors = args_.width * static_cast<int>(sizeof(T)) / 16;
    for (int i = threadIdx.x; i < args_.beams * vectors; i += kSoloThreads) {
      static_cast<uint4*>(args_.hidden_rows)[i] = *reinterpret_cast<const uint4*>(
          memory_ + args_.hidden.at + i / vectors * args_.hidden.pitch + i % vectors * 16);
    }
    sync_workers();
    if (threadIdx.x == 0)
      store_release(&args_.signals->hidden, args_.launch << 8 | static_cast<unsigned>(time + 1));
  }

  // Merges what the blocks of the vocabulary have found, `room` entries of `best` for each row.
  // Where there are warps enough, other ones find the rows' sums meanwhile.
  __device__ __forceinline__ void find_best(TokenValue* best, int room, int splits) const {
    const int beams = args_.beams, warp = threadIdx.x / kWarp,
              row_of_sum = 2 * beams > kSoloWarps ? warp : warp - kSoloWarps / 2;
    TokenValue* const best_of_row = best + warp * room;
    int found = 0;
    if (warp < beams) found = merge_lists(args_, warp, splits, best_of_row);
    if (row_of_sum >= 0 && row_of_sum < beams) {
      const float all =
          log_sum(args_.sums + static_cast<std::int64_t>(row_of_sum) * args_.tiles, args_.tiles);
      if (threadIdx.x % kWarp == 0) block_.log_sums[row_of_sum] = all;
    }
    sync_workers();
    if (warp < beams) rank_candidates(args_, found, block_.log_sums[warp], best_of_row);
  }

  // Waits for the vocabulary blocks, merges their candidates and advances the sentence.
  __device__ __forceinline__ void advance(int time) const {
    const int beams = args_.beams, count = args_.candidates, splits = vocabulary_blocks(args_);
    auto* best = reinterpret_cast<TokenValue*>(memory_ + args_.layout.best);
    const int room = count * (count + 2);
    SlotState& slot_state = *reinterpret_cast<SlotState*>(best + beams * room);
    load_slot_state(SoloTeam(), args_.rules, count, args_.state, slot_, slot_state);
    if (threadIdx.x == 0) {
      while (load_acquire(&args_.signals->blocks_done) - blocks_done_before_ <
             static_cast<unsigned>(splits * (time + 1))) {
      }
    }
    sync_workers();
    find_best(best, room, splits);
    advance_slot<kSoloRows>(
        SoloTeam(), args_.rules, [&](int k, int i) { return best[k * room + i]; }, count,
        args_.state, slot_, slot_state);
    SoloStepResult& step_result = block_.step_result;
    if (threadIdx.x == 0)
      step_result.length = slot_state.length + 1, step_result.done = slot_state.done;
    if (static_cast<int>(threadIdx.x) < beams && !slot_state.done)
      step_result.tokens[threadIdx.x] = slot_state.live(count)[threadIdx.x].node.token;
  }

  const SoloArgs& args_;
  SoloBlock& block_;
  char* memory_;
  int slot_;
  unsigned blocks_done_before_ = 0;
};

}  // namespace xlate::cuda
