// The kernel for a lone sentence: a cluster of 16 blocks has the layers, each block a share of
// every weight, and its blocks send one another what they compute (block.cuh); the other clusters
// have the vocabulary. In each block 8 warps compute and one brings weights through a ring of
// stages, as far ahead as there is room: so memory is never waited for in the row of dependent
// operations.
#include "engine/cuda/search/advance.cuh"
#include "engine/cuda/solo/attention.cuh"
#include "engine/cuda/solo/layers.cuh"
#include "engine/cuda/solo/vocabulary.cuh"

namespace xlate::cuda {
namespace {

#if __CUDA_ARCH__ >= 900

__device__ unsigned look(const unsigned* signal) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(signal) : "memory");
  return value;
}
__device__ void tell(unsigned* signal, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(signal), "r"(value) : "memory");
}
__device__ void count_one(unsigned* signal) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(signal) : "memory");
}

// No more weights are wanted than these that were used.
__device__ void stop(SoloBlock& block, const SoloRing& ring) {
  block.used = ring.used;
  __threadfence_block();
  block.stop = 1;
}

// The first cluster's blocks.
template <class T, int kHead>
class Layers {
 public:
  __device__ Layers(const SoloProgram& program, SoloBlock& block, char* memory)
      : program_(program),
        block_(block),
        memory_(memory),
        address_(shared_address(memory)),
        ring_(program.layout.stages),
        exchange_(block),
        ops_(reinterpret_cast<const SoloOp*>(memory + program.layout.ops)),
        slot_(program.slots[0]),
        head_(head_of_block(program)) {}

  __device__ void run() {
    begin();
    for (int time = 0; !block_.news.done && time < program_.times; ++time) step(time);
    if (threadIdx.x == 0) {
      if (rank_in_cluster() == 0) tell(&program_.signals->hidden, program_.launch << 8 | kSoloStop);
      stop(block_, ring_);
    }
    wait_fetched();
    if (rank_in_cluster() != 0) return;
    sync_workers();  // the search has written what is copied
    for (int i = threadIdx.x; i < program_.copy_words; i += kSoloThreads)
      program_.copy_to[i] = program_.copy_from[i];
  }

 private:
  // What holds for all steps of the launch.
  __device__ void begin() {
    const SearchState& state = program_.state;
    SoloNews& news = block_.news;
    const int beams = program_.beams;
    if (threadIdx.x == 0) {
      news.done = slot_ < 0 || state.done[slot_];
      news.length = slot_ < 0 ? 0 : state.length[slot_];
      if (rank_in_cluster() == 0) parts_before_ = look(&program_.signals->parts);
    }
    if (static_cast<int>(threadIdx.x) < beams)
      news.tokens[threadIdx.x] = slot_ < 0 ? 0 : state.token[slot_ * beams + threadIdx.x];
    source_length_ = slot_ < 0 ? 0 : program_.source_lengths[slot_];
    if (head_ >= 0 && slot_ >= 0) list_source(program_, memory_, slot_, source_length_);
    if (program_.first_norm >= 0)
      fetch_norm(ops_[program_.first_norm], norm_place(program_, memory_, 0), 0);
    for (int i = 0; i < program_.count; ++i) {
      if (ops_[i].kind == SoloKind::kLinear) keep_biases<T>(ops_[i], memory_);
    }
    sync_workers();
    if (head_ >= 0 && program_.first_cross >= 0)
      fetch(program_.first_cross, threadIdx.x, kSoloThreads);
  }

  __device__ void fetch(int op, int thread, int threads) {
    fetch_keys<T, kHead>(program_, ops_[op],
                         keys_of(program_, ops_[op].kind == SoloKind::kSelf, block_.list_count,
                                 source_length_, memory_),
                         0, head_, thread, threads);
  }

  __device__ void step(int time) {
    embed_rows<T>(program_, block_.news, memory_);
    wait_fetched();
    sync_workers();
    // While the others are at the first product.
    if (head_ >= 0 && static_cast<int>(threadIdx.x) / kWarp == kListWarp &&
        program_.first_self >= 0) {
      list_step(program_, block_, memory_, slot_);
      fetch(program_.first_self, threadIdx.x % kWarp, kWarp);
    }
    for (int i = 0; i < program_.count; ++i) operate(ops_[i]);
    search(time);
  }

  __device__ void operate(const SoloOp& op) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (op.kind == SoloKind::kNorm) {
      // Those without a row fetch the next one's gain, if there are any.
      const int first = program_.beams < kSoloWarps ? program_.beams * kWarp : 0;
      const float* gain = norm_place(program_, memory_, norm_turn_);
      norm_turn_ ^= 1;
      if (warp < program_.beams) norm_row<T>(op, warp, gain, memory_);
      if (static_cast<int>(threadIdx.x) >= first)
        fetch_norm(ops_[op.next], norm_place(program_, memory_, norm_turn_), first);
      wait_fetched();  // another norm may follow
      return sync_workers();
    }
    // By a warp that is seldom needed: to arrive in 16 blocks takes a while.
    if (warp == kListWarp) {
      const int columns = !op.for_heads ? op.width
                          : head_ >= 0  ? op.width / program_.width * kHead
                                        : 0;
      exchange_.begin(static_cast<std::uint32_t>(program_.beams * columns) *
                      (op.sums ? sizeof(float) : sizeof(T)));
    }
    if (op.kind == SoloKind::kLinear) {
      product<T, kHead>(program_, op, block_, address_, memory_, ring_, exchange_);
    } else if (head_ >= 0 && warp == 0) {
      attend_head<T, kHead>(
          program_, op,
          keys_of(program_, op.kind == SoloKind::kSelf, block_.list_count, source_length_, memory_),
          head_, memory_, exchange_);
    } else if (head_ >= 0 && warp == 1 && op.kind == SoloKind::kSelf) {
      store_own<T, kHead>(program_, op, block_.own_row, head_, memory_);
    }
    exchange_.end();
    if (op.kind != SoloKind::kLinear && head_ >= 0 && op.next >= 0)
      fetch(op.next, threadIdx.x, kSoloThreads);
  }

  // The last rows go to the other clusters, and what the search comes to comes to all blocks.
  __device__ void search(int time) {
    constexpr std::uint32_t kBytes = 3 * 16;
    if (rank_in_cluster() != 0) {
      if (threadIdx.x < kWarp) exchange_.begin(kBytes);
      return exchange_.end();
    }
    const int pieces = program_.width * static_cast<int>(sizeof(T)) / 16;
    for (int i = threadIdx.x; i < program_.beams * pieces; i += kSoloThreads) {
      static_cast<uint4*>(program_.hidden_rows)[i] = *reinterpret_cast<const uint4*>(
          memory_ + program_.hidden.at + i / pieces * program_.hidden.pitch + i % pieces * 16);
    }
    sync_workers();
    if (threadIdx.x == 0)
      tell(&program_.signals->hidden, program_.launch << 8 | static_cast<unsigned>(time + 1));
    advance(time);
    __threadfence();
    sync_workers();
    if (threadIdx.x < kWarp) {
      exchange_.begin(kBytes);
      const int lane = threadIdx.x % kWarp;
      for (int i = lane; i < 3 * kSoloCluster; i += kWarp) {
        exchange_.send_one(shared_address(&block_.news) + i / kSoloCluster * 16,
                           reinterpret_cast<const uint4*>(&block_.news)[i / kSoloCluster]);
      }
    }
    exchange_.end();
  }

  __device__ __forceinline__ void advance(int time) {
    const int beams = program_.beams, count = program_.candidates, warp = threadIdx.x / kWarp,
              parts = static_cast<int>(gridDim.x) - kSoloCluster;
    // Where self-attention's keys were.
    auto* best = reinterpret_cast<TokenValue*>(memory_ + program_.layout.self_keys);
    const int room = count * (count + 2);
    Books& books = *reinterpret_cast<Books*>(best + beams * room);
    open_books(SoloTeam(), program_.rules, count, program_.state, slot_, books);
    if (threadIdx.x == 0) {
      while (look(&program_.signals->parts) - parts_before_ <
             static_cast<unsigned>(parts * (time + 1))) {
      }
    }
    sync_workers();
    if (warp < beams) merge_parts(program_, warp, parts, best + warp * room);
    advance_slot<kSoloRows>(
        SoloTeam(), program_.rules, [&](int k, int i) { return best[k * room + i]; }, count,
        program_.state, slot_, books);
    SoloNews& news = block_.news;
    if (threadIdx.x == 0) news.length = books.length + 1, news.done = books.done;
    if (static_cast<int>(threadIdx.x) < beams && !books.done)
      news.tokens[threadIdx.x] = books.live(count)[threadIdx.x].node.token;
  }

  const SoloProgram& program_;
  SoloBlock& block_;
  char* memory_;
  std::uint32_t address_;
  SoloRing ring_;
  Exchange exchange_;
  const SoloOp* ops_;
  int slot_, head_, source_length_ = 0, norm_turn_ = 0;
  unsigned parts_before_ = 0;
};

// The other clusters' blocks.
template <class T>
__device__ void project(const SoloProgram& program, SoloBlock& block, char* memory) {
  const SoloTiles tiles(program);
  SoloRing ring(program.layout.word_stages);
  mark_never(program, tiles, memory);
  const int pieces = program.width * static_cast<int>(sizeof(T)) / 16;
  for (unsigned step = 1;; ++step) {
    if (threadIdx.x == 0) {
      unsigned signal;
      do {
        signal = look(&program.signals->hidden);
      } while (signal >> 8 != program.launch || (signal & 255) < step);
      if ((signal & 255) == kSoloStop) stop(block, ring);
    }
    sync_workers();
    if (block.stop) return;
    for (int i = threadIdx.x; i < program.beams * pieces; i += kSoloThreads) {
      *reinterpret_cast<uint4*>(memory + program.layout.hidden +
                                i / pieces * (pieces * 16 + kSoloGap) + i % pieces * 16) =
          __ldcg(static_cast<const uint4*>(program.hidden_rows) + i);
    }
    sync_workers();
    find_logits<T>(program, block, shared_address(memory), memory, ring, tiles);
    sync_workers();
    leave_parts(program, tiles, memory);
    sync_workers();
    if (threadIdx.x == 0) count_one(&program.signals->parts);
  }
}

// One thread of a block's last warp.
__device__ void bring(const SoloProgram& program, SoloBlock& block, std::uint32_t stages,
                      const SoloOp* ops) {
  const bool layers = blockIdx.x < kSoloCluster;
  SoloRing ring(layers ? program.layout.stages : program.layout.word_stages);
  bool more = true;
  while (more) {
    if (!layers) {
      const SoloTiles tiles(program);
      more = tiles.count > 0 && bring_tiles(program, block, stages, ring, tiles);
      continue;
    }
    for (int i = 0; more && i < program.count; ++i) {
      if (ops[i].kind == SoloKind::kLinear) more = bring_weights(block, stages, ring, ops[i]);
    }
    more = more && !block.stop;
  }
  while (!block.stop) {
  }
  __threadfence_block();
  drain(block, ring);
}

#endif

template <class T, int kHead>
__global__ void __launch_bounds__(kSoloThreads + kWarp, 1)
    solo_step_kernel(const __grid_constant__ SoloProgram program) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(1024) char memory[];
  __shared__ SoloBlock block;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSoloMostStages; ++i) {
      init_barrier(shared_address(&block.full[i]), 1);
      init_barrier(shared_address(&block.empty[i]), kSoloWarps);
    }
    for (auto& barrier : block.exchange) init_barrier(shared_address(&barrier), kSoloCluster);
    block.stop = 0;
    publish_barriers();
  }
  const bool layers = blockIdx.x < kSoloCluster;
  if (layers) {
    const auto* from = reinterpret_cast<const uint4*>(program.ops);
    auto* to = reinterpret_cast<uint4*>(memory + program.layout.ops);
    for (int i = threadIdx.x; i < program.count * static_cast<int>(sizeof(SoloOp) / 16);
         i += kSoloThreads + kWarp)
      to[i] = from[i];
  }
  __syncthreads();
  sync_cluster();
  if (threadIdx.x >= kSoloThreads) {
    if (threadIdx.x == kSoloThreads)
      bring(program, block, shared_address(memory),
            reinterpret_cast<const SoloOp*>(memory + program.layout.ops));
    __syncwarp();
  } else if (layers) {
    Layers<T, kHead>(program, block, memory).run();
  } else {
    project<T>(program, block, memory);
  }
  __syncwarp();
  sync_cluster();  // another block may still send here, and arrive at barriers here
#else
  __trap();
#endif
}

// A thread a piece of 8 columns.
__global__ void pack_kernel(SoloPacking packing, int passes, std::int64_t pieces,
                            const uint4* weight, uint4* packed) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSoloThreads + threadIdx.x;
  if (i >= pieces) return;
  const int chunk = static_cast<int>(i % 8), boxes = packing.columns / 64;
  std::int64_t rest = i / 8;
  const int row = static_cast<int>(rest % packing.pass_rows);
  rest /= packing.pass_rows;
  const int box = static_cast<int>(rest % boxes);
  rest /= boxes;
  const int in_share = static_cast<int>(rest % passes) * packing.pass_rows + row;
  const std::int64_t output = rest / passes * packing.share_rows + in_share;
  const bool there = in_share < packing.share_rows && output < packing.rows;
  packed[i] = there ? weight[output * (packing.stride / 8) + box * 8 + (chunk ^ row % 8)] : uint4{};
}

cudaLaunchConfig_t configured(int clusters, int bytes, cudaLaunchAttribute (&attributes)[1],
                              cudaStream_t stream) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {kSoloCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * kSoloCluster));
  config.blockDim = dim3(kSoloThreads + kWarp);
  config.dynamicSmemBytes = static_cast<std::size_t>(bytes);
  config.attrs = attributes;
  config.numAttrs = 1;
  config.stream = stream;
  return config;
}

}  // namespace

template <class T>
int prepare_solo_step(int bytes) {
  int least = kSoloMostClusters;
  for (const int head : {32, 64, 128}) {
    with_head(head, [&](auto width) {
      const auto kernel = solo_step_kernel<T, width>;
      cudaLaunchAttribute attributes[1]{};
      const cudaLaunchConfig_t config = configured(kSoloMostClusters, bytes, attributes, nullptr);
      int clusters = 0;
      const bool fine = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed,
                                             1) == cudaSuccess &&
                        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             bytes) == cudaSuccess &&
                        cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess &&
                        clusters >= 2;
      least = fine ? min(least, clusters) : 0;
    });
  }
  return least;
}

template <class T>
void run_solo_step(const SoloProgram& program, int clusters, cudaStream_t stream) {
  cudaLaunchAttribute attributes[1]{};
  const cudaLaunchConfig_t config = configured(clusters, program.layout.bytes, attributes, stream);
  with_head(program.width / program.heads,
            [&](auto width) { cudaLaunchKernelEx(&config, solo_step_kernel<T, width>, program); });
}

void pack_solo_weight(const SoloPacking& packing, const void* weight, void* packed,
                      cudaStream_t stream) {
  const auto pieces = static_cast<std::int64_t>(packing.bytes() / 16);
  pack_kernel<<<blocks_for(pieces, kSoloThreads), kSoloThreads, 0, stream>>>(
      packing, packing.passes(), pieces, static_cast<const uint4*>(weight),
      static_cast<uint4*>(packed));
}

#define INSTANTIATE(T)                          \
  template int prepare_solo_step<T>(int bytes); \
  template void run_solo_step<T>(const SoloProgram&, int clusters, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
