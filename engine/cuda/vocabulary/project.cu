// The kernel that multiplies rows with the vocabulary and finds their log-sum-exp and best
// candidates, for compute capability 9.0. The logits exist in accumulators only. A block holds 128
// rows, 64 in the registers of each of two warpgroups. It reads the weights in tiles of 128 ids, 64
// columns at a time, through a ring of stages in shared memory that one thread of a third warpgroup
// fills. In a cluster of two blocks each loads half of the weights and sends it to both. The
// warpgroups multiply in turns: while the products of one run, the other reduces its tile. The four
// lanes of a quad hold a row of the accumulators.
//
// The work is divided evenly among the clusters (schedule.cuh). The results of a row do not depend
// on the division: the products sum the inner dimension in one order, the exponentials are summed
// tile by tile, and the lists of the best are exact. So merge_rows finds the same bits in every
// case. Only the inputs of the product have 16 bits; all else is float32.
// docs/kernels/vocabulary.md describes this kernel.
#include "engine/cuda/device.cuh"
#include "engine/cuda/products/warpgroup.cuh"
#include "engine/cuda/vocabulary/candidates.cuh"
#include "engine/cuda/vocabulary/schedule.cuh"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate::cuda {
namespace {

// Fills the ring with the rows at the beginning of each range, and then with the weights of each
// tile. One thread does this. kBlocks is the number of column blocks, of 64 columns each; `block`
// counts these and no thread blocks.
template <int kBlocks, int kCount>
__device__ void load_stages(SharedStorage<kCount>& memory, const CUtensorMap& hidden,
                            const CUtensorMap& weight, const Schedule& schedule) {
  PipelineState<SharedStorage<kCount>::kStages> ring;
  const std::uint32_t cluster = cluster_blocks(), rank = rank_in_cluster();
  const auto next_stage = [&](std::uint32_t& full) {
    wait(shared_address(&memory.empty[ring.index]), ring.parity ^ 1);
    full = shared_address(&memory.full[ring.index]);
    arrive_expecting(full, kStageBytes);
    const std::uint32_t stage = shared_address(memory.stages[ring.index]);
    ring.advance();
    return stage;
  };
  const auto load_rows = [&](int block, int row) {
    std::uint32_t full;
    const std::uint32_t stage = next_stage(full);
    load_box(stage, hidden, block * kDepth, row, full);
    load_box(stage + kBoxBytes, hidden, block * kDepth, row + kWarpgroupRows, full);
  };
  TileRange range;
  for (TileRanges ranges(schedule); ranges.next(schedule, range);) {
    const int row = (range.blocks * cluster + rank) * kBlockRows;
    for (int block = 0; block < min(kBlocks, kHeldBlocks); ++block) load_rows(block, row);
    for (int tile = range.begin(); tile < range.end; tile = range.next(tile)) {
      for (int block = 0; block < kBlocks; ++block) {
        if (block >= kHeldBlocks) load_rows(block, row);
        std::uint32_t full;
        const std::uint32_t stage = next_stage(full);
        if (cluster > 1) {
          load_box_for(3, stage + rank * kBoxBytes, weight, block * kDepth,
                       tile * kTileIds + rank * 64, full);
        } else {
          load_box(stage, weight, block * kDepth, tile * kTileIds, full);
          load_box(stage + kBoxBytes, weight, block * kDepth, tile * kTileIds + 64, full);
        }
      }
    }
  }
}

// Writes each tile's bias and the bits of its never-chosen ids to shared memory. One warp does
// this, and each lane has four ids.
template <int kCount>
__device__ void load_biases(SharedStorage<kCount>& memory, const Schedule& schedule) {
  const int lane = threadIdx.x % kWarp;
  PipelineState<kBiasStages> bias_ring;
  TileRange range;
  for (TileRanges ranges(schedule); ranges.next(schedule, range);) {
    for (int tile = range.begin(); tile < range.end; tile = range.next(tile), bias_ring.advance()) {
      const int first = tile * kTileIds + 4 * lane;
      float bias[4];
      std::uint32_t never = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        bias[i] = first + i >= schedule.vocabulary ? kMinusInfinity
                  : schedule.bias                  ? schedule.bias[first + i]
                                                   : 0.0f;
      for (int i = 0; i < schedule.never_chosen_count; i += kWarp) {
        const int id =
            i + lane < schedule.never_chosen_count ? schedule.never_chosen[i + lane] : -1;
        for (unsigned found = __ballot_sync(kAllLanes, id >= 0 && id / kTileIds == tile); found;
             found &= found - 1) {
          const int place = __shfl_sync(kAllLanes, id, __ffs(found) - 1) - first;
          if (place >= 0 && place < 4) never |= 1u << place;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (schedule.renormalize && (never >> i & 1)) bias[i] = kMinusInfinity;
      }
      if (schedule.renormalize) never = 0;  // The bias of −∞ excludes these ids already.
      never <<= 4 * (lane % 8);
      for (int offset = 1; offset < 8; offset *= 2)
        never |= __shfl_xor_sync(kAllLanes, never, offset);
      wait(shared_address(&memory.bias_empty[bias_ring.index]), bias_ring.parity ^ 1);
      *reinterpret_cast<float4*>(&memory.bias[bias_ring.index][4 * lane]) =
          make_float4(bias[0], bias[1], bias[2], bias[3]);
      if (lane % 8 == 0) memory.never[bias_ring.index][lane / 8] = never;
      __syncwarp();
      if (lane == 0) arrive(shared_address(&memory.bias_full[bias_ring.index]));
    }
  }
}

// One of the two warpgroups that multiply, as a thread of it sees it.
template <class T, int kBlocks, int kCount>
struct Consumer {
  static constexpr int kHeld = kBlocks < kHeldBlocks ? kBlocks : kHeldBlocks;
  // The warpgroups take turns only if the ring has room for one to be a whole tile behind.
  static constexpr bool kTurns = kBlocks <= kHeldBlocks;

  SharedStorage<kCount>& memory;
  const Schedule& schedule;
  int thread;  // The thread is numbered among those of both warpgroups.
  int warpgroup, lane;
  std::uint32_t cluster;
  PipelineState<SharedStorage<kCount>::kStages> ring;
  PipelineState<kBiasStages> bias_ring;

  __device__ __forceinline__ std::uint32_t stage_at(int place) const {
    return shared_address(memory.stages[place]);
  }
  __device__ __forceinline__ int take_stage() {
    const int place = ring.index;
    wait(shared_address(&memory.full[place]), ring.parity);
    ring.advance();
    return place;
  }
  // Tells all blocks of the cluster that this warp has read the stage, because each of them sends
  // weights to it. Lane i tells block i.
  __device__ __forceinline__ void release(int place) {
    __syncwarp();
    if (lane < static_cast<int>(cluster))
      arrive_in(shared_address(&memory.empty[place]), static_cast<std::uint32_t>(lane));
  }

  // Loads the rows of a range into registers.
  __device__ __forceinline__ void hold_rows(std::uint32_t (&rows)[4 * kHeld][4]) {
    const int row = thread / kWarp % 4 * 16 + lane % 16;
#pragma unroll
    for (int block = 0; block < kHeld; ++block) {
      const int place = take_stage();
      const std::uint32_t row_address = stage_at(place) + warpgroup * kBoxBytes + row * 128;
#pragma unroll
      for (int k = 0; k < 4; ++k)
        load_matrices(rows[4 * block + k], row_address + ((2 * k + lane / 16) ^ (row % 8)) * 16);
      release(place);
    }
  }

  // Computes d, the product of the rows with the next tile of weights.
  __device__ __forceinline__ void multiply_tile(float (&d)[64],
                                                const std::uint32_t (&rows)[4 * kHeld][4]) {
    int last = 0, last_rows = 0;
    if (kTurns) wait_for_turn(1 + warpgroup);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const int own = block < kHeld ? 0 : take_stage(), place = take_stage();
      const std::uint64_t weights = matrix_at(stage_at(place)),
                          others = matrix_at(stage_at(own) + warpgroup * kBoxBytes);
      begin_products();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (block < kHeld)
          multiply<T>(d, rows[block % kHeld * 4 + k], weights + 2 * k, block + k > 0);
        else
          multiply<T>(d, others + 2 * k, weights + 2 * k, 1);
      }
      commit_products();
      if (block > 0) {
        wait_for_products<1>();
        release(last);
        if (block > kHeld) release(last_rows);
      }
      last = place, last_rows = own;
    }
    if (kTurns && give_next) give_turn(2 - warpgroup);
    wait_for_all_products(d);
    release(last);
    if (kBlocks > kHeld) release(last_rows);
  }
  bool give_next = true;  // This says whether the other warpgroup still waits for a turn.

  __device__ __forceinline__ void add_bias(float (&d)[64]) {
    const float* bias = memory.bias[bias_ring.index] + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const float2 two = *reinterpret_cast<const float2*>(bias + 8 * j);
      d[4 * j] += two.x, d[4 * j + 1] += two.y, d[4 * j + 2] += two.x, d[4 * j + 3] += two.y;
    }
  }
  // With one candidate: adds the exponentials of the never-chosen ids to the sums and removes their
  // logits. Such ids are rare, so one column is processed at a time, which needs few registers.
  __device__ __forceinline__ void forbid(RowState& state, float (&d)[64]) {
    for (int word = 0; word < kTileIds / 32; ++word) {
      for (std::uint32_t bits = memory.never[bias_ring.index][word]; bits; bits &= bits - 1) {
        const int column = 32 * word + __ffs(static_cast<int>(bits)) - 1 - 2 * (lane % 4);
        float value[2] = {kMinusInfinity, kMinusInfinity};
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          if (column == i / 4 * 8 + i % 2) value[i / 2 % 2] = d[i], d[i] = kMinusInfinity;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h)
          state.sum[h] += exp2_fast(fmaf(value[h], kLog2E, -reference_of(state.top[h])));
      }
    }
    state.find_highest(d);
  }

  // Takes from the logits d of a tile what the rows need: the sum of exponentials and the
  // candidates. Of a seed only the candidates are needed, for their bound.
  __device__ __forceinline__ void reduce_tile(RowState& state, CandidateBuffer<kCount>& candidates,
                                              float (&d)[64], int tile, bool is_first,
                                              bool is_seed) {
    wait(shared_address(&memory.bias_full[bias_ring.index]), bias_ring.parity);
    add_bias(d);
    state.find_highest(d);
    state.set_top();
    const std::uint32_t* words = memory.never[bias_ring.index];
    const int never = __popc(words[0]) + __popc(words[1]) + __popc(words[2]) + __popc(words[3]);
    if constexpr (kCount == 1) {
      if (never) forbid(state, d);
      state.template keep_best<0>(d, tile * kTileIds + 2 * (lane % 4));
      state.template keep_best<1>(d, tile * kTileIds + 2 * (lane % 4));
    } else {
      if (is_first && never <= 16 - kCount) {
        if (never)
          state.template bound_below<4>(d);
        else
          state.template bound_below<kCount / 4>(d);
      }
      candidates.take(state, d, tile, never ? words : nullptr);
    }
    __syncwarp();
    if (lane == 0) arrive(shared_address(&memory.bias_empty[bias_ring.index]));
    bias_ring.advance();
    keep_behind(d);
    if (!is_seed) state.add_powers(d);
  }

  // Joins the sums of a tile over the quad and writes them. Each step does both rows, so that their
  // latencies overlap.
  __device__ __forceinline__ void write_sums(RowState& state, int row, int tile) {
    float top[2], sum[2];
#pragma unroll
    for (int h = 0; h < 2; ++h)
      top[h] = fmaxf(state.top[h], __shfl_xor_sync(kAllLanes, state.top[h], 1));
#pragma unroll
    for (int h = 0; h < 2; ++h) top[h] = fmaxf(top[h], __shfl_xor_sync(kAllLanes, top[h], 2));
#pragma unroll
    for (int h = 0; h < 2; ++h)
      sum[h] = state.sum[h] * exp2_fast(state.top[h] - reference_of(top[h]));
#pragma unroll
    for (int h = 0; h < 2; ++h) sum[h] += __shfl_xor_sync(kAllLanes, sum[h], 1);
#pragma unroll
    for (int h = 0; h < 2; ++h) sum[h] += __shfl_xor_sync(kAllLanes, sum[h], 2);
    if (lane % 4 != 0) return;
    float2* out = schedule.sums +
                  (static_cast<std::uint32_t>(row) * static_cast<std::uint32_t>(schedule.tiles) +
                   static_cast<std::uint32_t>(tile));
    if (row < schedule.rows) *out = make_float2(top[0], sum[0]);
    if (row + 8 < schedule.rows) out[8 * schedule.tiles] = make_float2(top[1], sum[1]);
  }

  // Writes the best of the rows as list `split`. If this is the last list of the rows, the
  // remaining ones up to list_splits are filled with −∞.
  __device__ __forceinline__ void write_lists(RowState& state, CandidateBuffer<kCount>& candidates,
                                              int row, int split, bool last) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      TokenValue* out =
          schedule.lists +
          (static_cast<std::int64_t>(row + 8 * h) * schedule.list_splits + split) * kCount;
      const bool writes = row + 8 * h < schedule.rows && lane % 4 == 0;
      if constexpr (kCount == 1) {
        TokenValue best{state.bound[h], state.token[h]};
#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
          const TokenValue other{__shfl_xor_sync(kAllLanes, best.value, offset),
                                 __shfl_xor_sync(kAllLanes, best.token, offset)};
          if (better(other, best)) best = other;
        }
        if (writes) *out = best;
      } else {
        int count = candidates.count_of(h);
        candidates.raise(h, state.bound[h], count);
        candidates.find_best(h, count, [&](int rank, const TokenValue& entry) {
          if (writes) out[rank] = entry;
        });
      }
      for (int i = kCount; writes && last && i < (schedule.list_splits - split) * kCount; ++i)
        out[i] = {kMinusInfinity, 0};
    }
  }

  // Goes through a range in which this warpgroup has no rows. It releases all stages and gives its
  // turns away, because the others wait for them.
  __device__ void skip_range(const TileRange& range, bool last_range) {
    for (int i = 0; i < kHeld; ++i) release(take_stage());
    for (int tile = range.begin(); tile < range.end; tile = range.next(tile), bias_ring.advance()) {
      if (kTurns) wait_for_turn(1 + warpgroup);
      for (int i = 0; i < kBlocks + (kBlocks - kHeld); ++i) release(take_stage());
      if (kTurns && !(last_range && warpgroup == 1 && tile + 1 == range.end))
        give_turn(2 - warpgroup);
      wait(shared_address(&memory.bias_full[bias_ring.index]), bias_ring.parity);
      __syncwarp();
      if (lane == 0) arrive(shared_address(&memory.bias_empty[bias_ring.index]));
    }
  }

  __device__ __forceinline__ void process_range(const TileRange& range, bool last_range,
                                                int first_row) {
    std::uint32_t rows[4 * kHeld][4];
    float d[64];
    RowState state{
        {kMinusInfinity, kMinusInfinity}, {0, 0}, {kMinusInfinity, kMinusInfinity}, {0, 0}, {}};
    CandidateBuffer<kCount> candidates{memory, thread, {}};
    candidates.clear();
    hold_rows(rows);
    for (int tile = range.begin(); tile < range.end; tile = range.next(tile)) {
      // At the last tile of the second warpgroup the first one has had its last turn.
      give_next = !(last_range && warpgroup == 1 && tile + 1 == range.end);
      multiply_tile(d, rows);
      reduce_tile(state, candidates, d, tile, tile == range.begin(), range.is_seed(tile));
      if (!range.is_seed(tile)) write_sums(state, first_row + row_of(thread), tile);
      if constexpr (kCount > 1) {
        // Few values exceed a bound that was taken from many tiles, so it pays to raise it before
        // the lists are full.
        if (tile + 1 == kMostSeeds || tile % 128 == 15) candidates.raise_both(state);
      }
    }
    // The tokens of the seeds are in the list of another cluster.
    if constexpr (kCount > 1) candidates.drop_before(range.tile * kTileIds);
    write_lists(state, candidates, first_row + row_of(thread), split_of(schedule, range),
                range.end == schedule.tiles);
  }

  __device__ __forceinline__ void process_all() {
    if (kTurns && warpgroup == 1) give_turn(1);
    TileRange range;
    for (TileRanges ranges(schedule); ranges.next(schedule, range);) {
      const int first_row = first_row_of(range);
      const bool last_range = ranges.unit == ranges.end;
      if (first_row + warpgroup * kWarpgroupRows < schedule.rows)
        process_range(range, last_range, first_row);
      else
        skip_range(range, last_range);
    }
  }
};

template <class T, int kBlocks, int kCount>
__global__ void __launch_bounds__(kThreads, 1)
    vocabulary_kernel(const __grid_constant__ CUtensorMap hidden,
                      const __grid_constant__ CUtensorMap weight,
                      const __grid_constant__ Schedule schedule) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  auto& memory = *reinterpret_cast<SharedStorage<kCount>*>(shared);
  const int warp = threadIdx.x / kWarp;
  const std::uint32_t cluster = cluster_blocks();
  if (threadIdx.x == 0) {
    prefetch_map(hidden);
    prefetch_map(weight);
    for (int i = 0; i < memory.kStages; ++i) {
      init_barrier(shared_address(&memory.full[i]), 1);
      init_barrier(shared_address(&memory.empty[i]),
                   static_cast<int>(cluster) * 2 * kWarpgroupWarps);
    }
    for (int i = 0; i < kBiasStages; ++i) {
      init_barrier(shared_address(&memory.bias_full[i]), 1);
      init_barrier(shared_address(&memory.bias_empty[i]), 2 * kWarpgroupWarps);
    }
    publish_barriers();
  }
  launch_dependents();
  __syncthreads();
  sync_cluster();
  if (threadIdx.x < kWarpgroup) {
    decrease_registers<24>();
    if (threadIdx.x == 0) load_stages<kBlocks, kCount>(memory, hidden, weight, schedule);
    if (warp == 1) load_biases<kCount>(memory, schedule);
    __syncwarp();
  } else {
    increase_registers<240>();
    const int thread = threadIdx.x - kWarpgroup;
    Consumer<T, kBlocks, kCount> consumer{memory,         schedule, thread, thread / kWarpgroup,
                                          thread % kWarp, cluster};
    consumer.process_all();
  }
  // The other block may still send weights to this block and arrive at its barriers.
  sync_cluster();
#else
  __trap();  // vocabulary_kernel_fits returns false on other devices.
#endif
}

// The grid and the division of the work. Clusters have two blocks, which share weights, as soon as
// there are more rows than one block holds. `blocks` is the number of row blocks.
struct Cuts {
  int cluster, blocks, clusters, list_splits;
  Schedule schedule;
};

Cuts cut(const VocabularyArgs& args, int multiprocessors) {
  Cuts cuts{};
  Schedule& schedule = cuts.schedule;
  schedule.bias = args.bias;
  schedule.rows = static_cast<int>(args.rows),
  schedule.vocabulary = static_cast<int>(args.vocabulary);
  schedule.tiles = (schedule.vocabulary + kTileIds - 1) / kTileIds;
  cuts.cluster = schedule.rows > kBlockRows ? 2 : 1;
  cuts.blocks = (schedule.rows + cuts.cluster * kBlockRows - 1) / (cuts.cluster * kBlockRows);
  schedule.units = cuts.blocks * schedule.tiles;
  cuts.clusters = min(min(multiprocessors, kMostBlocks) / cuts.cluster, schedule.units);
  for (int i = 0; i < cuts.blocks; ++i) {
    const std::int64_t first = static_cast<std::int64_t>(i) * schedule.tiles,
                       last = first + schedule.tiles - 1;
    schedule.list_splits =
        max(schedule.list_splits, cluster_of(last, schedule.units, cuts.clusters) -
                                      cluster_of(first, schedule.units, cuts.clusters) + 1);
  }
  return cuts;
}

// Returns the number of candidates that the kernel lists, for which it is compiled.
int listed(int count) { return count == 1 ? 1 : count <= 8 ? 8 : 16; }

template <class T, int kBlocks, int kCount>
void launch(const VocabularyArgs& args, const Cuts& cuts, cudaStream_t stream) {
  const auto kernel = vocabulary_kernel<T, kBlocks, kCount>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       sizeof(SharedStorage<kCount>));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(cuts.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(cuts.clusters * cuts.cluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(SharedStorage<kCount>);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, kernel, args.hidden, args.weight, cuts.schedule);
}

template <class T, int kCount>
void launch_width(const VocabularyArgs& args, const Cuts& cuts, cudaStream_t stream) {
  if (args.width <= 4 * kDepth)
    launch<T, 4, kCount>(args, cuts, stream);
  else if (args.width <= 8 * kDepth)
    launch<T, 8, kCount>(args, cuts, stream);
  else
    launch<T, 16, kCount>(args, cuts, stream);
}

}  // namespace

bool vocabulary_kernel_fits(int capability, std::int64_t width, std::int64_t vocabulary,
                            int count) {
  return capability == 90 && width > 0 && width % kDepth == 0 && width <= 16 * kDepth &&
         count >= 1 && count <= 16 && vocabulary < (1 << 30);
}

std::size_t vocabulary_scratch_bytes(std::int64_t rows, std::int64_t vocabulary, int count) {
  // If C clusters share B row blocks evenly, at most C / B + 2 of them work at one row block, and
  // each row has at most as many lists. C / B lists for each row are together at most kMostBlocks ·
  // kBlockRows lists.
  const std::int64_t tiles = (vocabulary + kTileIds - 1) / kTileIds;
  const std::int64_t lists =
      (static_cast<std::int64_t>(kMostBlocks) * kBlockRows + 2 * rows) * listed(count);
  return static_cast<std::size_t>(lists) * sizeof(TokenValue) +
         static_cast<std::size_t>(rows * tiles) * sizeof(float2);
}

template <class T>
void project_rows(const VocabularyArgs& args, const RulesView& rules, const RowCandidates& out,
                  cudaStream_t stream) {
  if (args.rows == 0) return;
  int device = 0, multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  Cuts cuts = cut(args, multiprocessors);
  Schedule& schedule = cuts.schedule;
  schedule.never_chosen = rules.never_chosen,
  schedule.never_chosen_count = rules.never_chosen_count, schedule.renormalize = rules.renormalize;
  const int count = listed(out.count);
  schedule.seeds = count > 1 ? kMostSeeds : 0;
  schedule.lists = static_cast<TokenValue*>(args.scratch);
  schedule.sums =
      reinterpret_cast<float2*>(schedule.lists + args.rows * schedule.list_splits * count);
  if (count == 1)
    launch_width<T, 1>(args, cuts, stream);
  else if (count == 8)
    launch_width<T, 8>(args, cuts, stream);
  else
    launch_width<T, 16>(args, cuts, stream);
  merge_rows({schedule.sums, schedule.tiles, schedule.lists, schedule.list_splits, count},
             args.rows, out, stream);
}

template void project_rows<__half>(const VocabularyArgs&, const RulesView&, const RowCandidates&,
                                   cudaStream_t);
template void project_rows<__nv_bfloat16>(const VocabularyArgs&, const RulesView&,
                                          const RowCandidates&, cudaStream_t);

}  // namespace xlate::cuda
