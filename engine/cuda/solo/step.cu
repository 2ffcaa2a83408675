// This file has the solo kernel, which runs whole decoding steps of one sentence. The first cluster
// computes the layers, or in a wide network the first clusters. Each of their blocks has a slice of
// every weight, and the blocks of a cluster send one another what they compute (block.cuh). Between
// clusters it goes through memory (mailbox.cuh). The other blocks compute the vocabulary.
// In each block 8 warps compute, and a ninth warp loads weights into a ring of stages as far ahead
// as stages are free. The dependent operations thus wait less for memory.
#include "engine/cuda/solo/attention.cuh"
#include "engine/cuda/solo/norms.cuh"
#include "engine/cuda/solo/products.cuh"
#include "engine/cuda/solo/search.cuh"

namespace xlate::cuda {
namespace {

#if __CUDA_ARCH__ >= 900

// Tells the loading thread that no stages will be read but those that `ring` has passed.
__device__ void stop(SoloBlock& block, const SoloPipelineState& ring) {
  block.used = ring.used;
  __threadfence_block();
  block.stop = 1;
}

// This is what the computing threads of the blocks do that compute layers. SoloArgs::wide says what
// kWide is, and SoloArgs::any what kAny is, which is true in a wide network.
template <class T, int kHead, bool kAny, bool kWide>
class Layers {
 public:
  __device__ Layers(const SoloArgs& args, SoloBlock& block, char* memory)
      : args_(args),
        block_(block),
        memory_(memory),
        address_(shared_address(memory)),
        ring_(args.layout.stages),
        exchange_(block),
        ops_(reinterpret_cast<const SoloOp*>(memory + args.layout.ops)),
        slot_(args.slots[0]),
        head_(head_of_block(args)),
        norm_part_(args),
        search_(args, block, memory, slot_) {}

  __device__ void run() {
    begin();
    for (int time = 0; !block_.step_result.done && time < args_.times; ++time) step(time);
    if (threadIdx.x == 0) {
      search_.end();
      stop(block_, ring_);
    }
    wait_fetched();
    if (!searches()) return;
    sync_workers();  // All threads must have written their part of the search's results.
    for (int i = threadIdx.x; i < args_.copy_words; i += kSoloThreads)
      args_.copy_to[i] = args_.copy_from[i];
  }

 private:
  // Reads the slot's state, and copies to shared memory what all steps of the launch need.
  __device__ void begin() {
    const SearchState& state = args_.state;
    SoloStepResult& step_result = block_.step_result;
    const int beams = args_.beams;
    if (threadIdx.x == 0) {
      step_result.done = slot_ < 0 || state.done[slot_];
      step_result.length = slot_ < 0 ? 0 : state.length[slot_];
      search_.begin();
    }
    if (static_cast<int>(threadIdx.x) < beams)
      step_result.tokens[threadIdx.x] = slot_ < 0 ? 0 : state.token[slot_ * beams + threadIdx.x];
    source_length_ = slot_ < 0 ? 0 : args_.source_lengths[slot_];
    if (head_ >= 0 && slot_ >= 0) list_source(args_, memory_, slot_, source_length_);
    if (args_.first_norm >= 0)
      fetch_norm<kAny>(ops_[args_.first_norm], norm_place(args_, memory_, 0), 0);
    for (int i = 0; i < args_.count; ++i) {
      if (ops_[i].kind == SoloKind::kLinear) keep_biases<T, kAny>(ops_[i], memory_);
    }
    sync_workers();
    if (head_ >= 0 && args_.first_cross >= 0) fetch(args_.first_cross, threadIdx.x, kSoloThreads);
  }

  // Starts copying the first chunk of an attention's cached keys.
  __device__ void fetch(int op, int thread, int threads) {
    fetch_keys<T, kHead>(args_, ops_[op],
                         keys_of(args_, ops_[op].kind == SoloKind::kSelf, block_.list_count,
                                 source_length_, memory_),
                         0, head_, thread, threads);
  }

  __device__ void step(int time) {
    embed_rows<T, kAny>(args_, block_.step_result, memory_);
    wait_fetched();
    sync_workers();
    // One warp lists the keys while the others begin the first product.
    if (head_ >= 0 && static_cast<int>(threadIdx.x) / kWarp == kListWarp && args_.first_self >= 0) {
      list_step<T, kAny>(args_, block_, memory_, slot_, head_);
      fetch(args_.first_self, threadIdx.x % kWarp, kWarp);
    }
    for (int i = 0; i < args_.count; ++i) operate(ops_[i]);
    search_.run(time);
    if (threadIdx.x < kWarp) search_.share_result(exchange_);
    exchange_.end();
  }

  __device__ void operate(const SoloOp& kept) {
    // The operation is copied to registers at once. Field by field, each would be waited for.
    const SoloOp op = kept;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (op.kind == SoloKind::kNorm) {
      // Warps without a row fetch the gain and the shift of the next norm. Where all warps have
      // rows, all fetch them afterwards.
      const int first = args_.beams < kSoloWarps ? args_.beams * kWarp : 0;
      const float* gain = norm_place(args_, memory_, norm_turn_);
      norm_turn_ ^= 1;
      const auto fetch_next = [&] {
        if (static_cast<int>(threadIdx.x) >= first)
          fetch_norm<kAny>(ops_[op.next], norm_place(args_, memory_, norm_turn_), first);
      };
      if (kAny && !op.x.pitch) {
        if (warp < args_.beams) norm_lone_row<T>(kept, warp, gain, memory_);
        fetch_next();
      } else {
        SoloNorm<T, kAny>(args_, op, memory_).run(norm_part_, gain, block_, fetch_next);
      }
      wait_fetched();  // The next operation may be a norm, too.
      return sync_workers();
    }
    // Arriving at the mbarriers of all blocks of the cluster takes a while, so a warp does it that
    // has the least other work.
    if (warp == kListWarp) exchange_.begin(incoming_bytes(op));
    if constexpr (kWide)
      exchange_by_posts(op, warp);
    else
      exchange_in_cluster(op, warp);
    exchange_.end();
    if (op.kind != SoloKind::kLinear && head_ >= 0) fetch_ = op.next;
  }

  // Starts copying the keys of the next attention of the kind that was the last, if it was before
  // this product. Warps without a tile do it where there are any.
  __device__ __forceinline__ void fetch_behind_attention(const SoloOp& op) {
    if (fetch_ < 0) return;
    const int first = op.round_tiles < kSoloWarps ? op.round_tiles * kWarp : 0,
              thread = static_cast<int>(threadIdx.x) - first;
    if (thread >= 0) fetch(fetch_, thread, kSoloThreads - first);
    fetch_ = -1;
  }

  // Returns how many bytes the blocks of the cluster send to this one.
  __device__ std::uint32_t incoming_bytes(const SoloOp& op) const {
    const int head_columns = head_ >= 0 && !kWide ? op.width / args_.attention_width * kHead : 0,
              columns = op.for_heads ? head_columns : op.width;
    return static_cast<std::uint32_t>(args_.beams * columns) *
           (op.out_kind == SoloOut::kFloat32 ? sizeof(float) : sizeof(T));
  }

  // Computes a product or an attention, whose outputs go to the blocks of the cluster.
  __device__ __forceinline__ void exchange_in_cluster(const SoloOp& op, int warp) {
    if (op.kind == SoloKind::kLinear) {
      fetch_behind_attention(op);
      product<T, kAny, kWide>(op, block_, address_, memory_, args_.beams, ring_,
                              SoloSender<T, kHead>(args_, op, exchange_, address_));
    } else if (head_ >= 0) {
      attend(op, warp);
      send_head<T, kHead>(args_, op, head_, memory_, exchange_);
    }
  }
  // Does the same where they go to all clusters.
  __device__ __forceinline__ void exchange_by_posts(const SoloOp& op, int warp) {
    if (op.kind == SoloKind::kLinear) {
      fetch_behind_attention(op);
      product<T, kAny, kWide>(op, block_, address_, memory_, args_.beams, ring_,
                              SoloPoster(args_, op, exchange_.count));
      if (op.for_heads) {
        if (head_ >= 0) take_head<kHead>(args_, op, head_, memory_, exchange_.count);
        return;
      }
    } else if (head_ >= 0) {
      attend(op, warp);
      post_head<kHead>(args_, op, head_, memory_, exchange_.count);
    }
    forward_outputs(args_, op, address_, exchange_);
  }

  __device__ __forceinline__ void attend(const SoloOp& op, int warp) {
    const bool self = op.kind == SoloKind::kSelf;
    if (warp == 0)
      attend_head<T, kHead, kAny>(args_, op,
                                  keys_of(args_, self, block_.list_count, source_length_, memory_),
                                  head_, memory_);
    else if (warp == 1 && self)
      store_new_keys<T, kHead>(args_, op, block_.new_key_row, head_, memory_);
    sync_workers();
  }

  const SoloArgs& args_;
  SoloBlock& block_;
  char* memory_;
  std::uint32_t address_;
  SoloPipelineState ring_;
  Exchange<kWide ? kSoloWideCluster : kSoloCluster> exchange_;
  const SoloOp* ops_;
  int slot_, head_, source_length_ = 0, norm_turn_ = 0;
  // The keys of this attention are to be fetched, or there are none to fetch.
  int fetch_ = -1;
  SoloNormPart norm_part_;
  SoloSearch<T> search_;
};

// This is what the computing threads of the other blocks do.
template <class T>
__device__ void project(const SoloArgs& args, SoloBlock& block, char* memory) {
  const SoloTiles tiles(args);
  SoloPipelineState ring(args.layout.vocabulary_stages);
  mark_never(args, tiles, memory);
  const int vectors = args.width * static_cast<int>(sizeof(T)) / 16;
  for (unsigned step = 1;; ++step) {
    if (threadIdx.x == 0) {
      unsigned signal;
      do {
        signal = load_acquire(&args.signals->hidden);
      } while (signal >> 8 != args.launch || (signal & 255) < step);
      if ((signal & 255) == kSoloStop) stop(block, ring);
    }
    sync_workers();
    if (block.stop) return;
    for (int i = threadIdx.x; i < args.beams * vectors; i += kSoloThreads) {
      *reinterpret_cast<uint4*>(memory + args.layout.hidden +
                                i / vectors * (vectors * 16 + kSoloGap) + i % vectors * 16) =
          __ldcg(static_cast<const uint4*>(args.hidden_rows) + i);
    }
    sync_workers();
    find_candidates<T>(args, block, shared_address(memory), memory, ring, tiles);
    sync_workers();
    if (threadIdx.x == 0) add_release(&args.signals->blocks_done);
  }
}

// Loads the weights of a block in the order in which they are read, again and again until no more
// are needed. One thread of the block's last warp calls it.
__device__ void load_stages(const SoloArgs& args, SoloBlock& block, std::uint32_t stages,
                            const SoloOp* ops) {
  const bool layers = computes_layers(args);
  SoloPipelineState ring(layers ? args.layout.stages : args.layout.vocabulary_stages);
  bool more = true;
  while (more) {
    if (!layers) {
      const SoloTiles tiles(args);
      more = tiles.count > 0 && load_tiles(args, block, stages, ring, tiles);
      continue;
    }
    for (int i = 0; more && i < args.count; ++i) {
      if (ops[i].kind == SoloKind::kLinear) more = load_weights(block, stages, ring, ops[i]);
    }
    more = more && !block.stop;
  }
  while (!block.stop) {
  }
  __threadfence_block();
  drain(block, ring);
}

#endif

template <class T, int kHead, bool kAny, bool kWide>
__global__ void __launch_bounds__(kSoloThreads + kWarp, 1)
    solo_step_kernel(const __grid_constant__ SoloArgs args) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(1024) char memory[];
  __shared__ SoloBlock block;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSoloMostStages; ++i) {
      init_barrier(shared_address(&block.full[i]), 1);
      init_barrier(shared_address(&block.empty[i]), kSoloWarps);
    }
    for (auto& barrier : block.exchange) init_barrier(shared_address(&barrier), cluster_blocks());
    block.stop = 0;
    publish_barriers();
  }
  const bool layers = computes_layers(args);
  if (layers) {
    const auto* from = reinterpret_cast<const uint4*>(args.ops);
    auto* to = reinterpret_cast<uint4*>(memory + args.layout.ops);
    for (int i = threadIdx.x; i < args.count * static_cast<int>(sizeof(SoloOp) / 16);
         i += kSoloThreads + kWarp)
      to[i] = from[i];
    __syncthreads();
    for (int i = threadIdx.x; i < args.count; i += kSoloThreads + kWarp)
      set_tiles(args, reinterpret_cast<SoloOp*>(memory + args.layout.ops)[i]);
  }
  __syncthreads();
  sync_cluster();
  if (threadIdx.x >= kSoloThreads) {
    if (threadIdx.x == kSoloThreads)
      load_stages(args, block, shared_address(memory),
                  reinterpret_cast<const SoloOp*>(memory + args.layout.ops));
    __syncwarp();
  } else if (layers) {
    Layers<T, kHead, kAny, kWide>(args, block, memory).run();
  } else {
    project<T>(args, block, memory);
  }
  __syncwarp();
  sync_cluster();  // Until then another block may send to this one and arrive at its mbarriers.
#else
  __trap();
#endif
}

constexpr int cluster_of(bool wide) { return wide ? kSoloWideCluster : kSoloCluster; }

cudaLaunchConfig_t configured(int blocks, bool wide, int bytes,
                              cudaLaunchAttribute (&attributes)[1], cudaStream_t stream) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(cluster_of(wide)), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kSoloThreads + kWarp);
  config.dynamicSmemBytes = static_cast<std::size_t>(bytes);
  config.attrs = attributes;
  config.numAttrs = 1;
  config.stream = stream;
  return config;
}

// Calls body with the instance of the kernel for this width of heads. The one that is `wide`
// supports whatever the compiler accepts.
template <class T, class Body>
void with_kernel(int head, bool any, bool wide, const Body& body) {
  with_head(head, [&](auto width) {
    if (wide)
      body(solo_step_kernel<T, width, true, true>);
    else if (any)
      body(solo_step_kernel<T, width, true, false>);
    else
      body(solo_step_kernel<T, width, false, false>);
  });
}

}  // namespace

template <class T>
SoloRoom prepare_solo_step(int bytes) {
  constexpr int kMany = 1 << 16;  // No device holds more blocks.
  int least[2] = {kMany, kMany};
  const auto prepare = [&](auto kernel, bool wide) {
    const int cluster = cluster_of(wide);
    cudaLaunchAttribute attributes[1]{};
    const cudaLaunchConfig_t config =
        configured(kSoloMostClusters * kSoloCluster, wide, bytes, attributes, nullptr);
    int clusters = 0;
    const bool fine = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed,
                                           1) == cudaSuccess &&
                      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           bytes) == cudaSuccess &&
                      cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess;
    least[wide] = fine ? min(least[wide], clusters * cluster) : 0;
  };
  for (const int head : {32, 64, 128}) {
    for (const bool any : {false, true})
      with_kernel<T>(head, any, false, [&](auto kernel) { prepare(kernel, false); });
    with_kernel<T>(head, true, true, [&](auto kernel) { prepare(kernel, true); });
  }
  if (min(least[0], least[1]) < 2 * kSoloCluster) return {};
  return {min(least[0], kSoloMostClusters * kSoloCluster), least[1]};
}

template <class T>
void run_solo_step(const SoloArgs& args, int blocks, cudaStream_t stream) {
  const bool wide = args.wide != 0;
  cudaLaunchAttribute attributes[1]{};
  const cudaLaunchConfig_t config = configured(blocks, wide, args.layout.bytes, attributes, stream);
  with_kernel<T>(args.attention_width / args.heads, args.any != 0, wide,
                 [&](auto kernel) { cudaLaunchKernelEx(&config, kernel, args); });
}

#define INSTANTIATE(T)                               \
  template SoloRoom prepare_solo_step<T>(int bytes); \
  template void run_solo_step<T>(const SoloArgs&, int blocks, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
