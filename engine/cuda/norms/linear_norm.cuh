// This kernel computes a product and the norm behind it, on compute capability 9.0: sum = x·Wᵀ + b
// + residual, and norm(sum). In post-norm networks the layer norm of the sum is the new residual
// stream. In pre-norm networks the sum itself is, and a layer norm or RMS norm of it is a second
// result. A cluster computes a tile of rows, and each of its blocks 256 of their outputs. The
// outputs are the 64 rows of a WGMMA instruction, so that the tile's rows are its columns and may
// number 64 to 192 in steps of 32. Each cluster computes one tile, whose size linear_norm_tile
// chooses by the number of rows. Weights and rows pass through a ring of stages in shared memory,
// 64 columns at a time. Each block loads its part of the tile's rows and multicasts it to all
// blocks of its cluster. The accumulators go to shared memory in float32. Each block then
// normalizes its part of the rows and reads their other outputs from the blocks that computed them.
// The results have the bits of a product by cuBLASLt (13.1) followed by norm_rows.
#pragma once

#include <algorithm>

#include "engine/cuda/norms/norm.cuh"
#include "engine/cuda/norms/norms.h"
#include "engine/cuda/products/warpgroup.cuh"

namespace xlate::cuda {

// Does what linear_norm does where args.normed is not null.
template <class T>
void linear_norm_before(const LinearNormArgs<T>& args, cudaStream_t stream);

namespace {

constexpr int kBlockOutputs = kLinearNormOutputs;
// A stage holds this many columns of x and of the weight.
constexpr int kDepth = 64;
constexpr int kBoxRowBytes = 2 * kDepth;
constexpr int kConsumers = 2 * kWarpgroup, kThreads = kWarpgroup + kConsumers;
constexpr int kWarps = kConsumers / kWarp;
// A lane's next vector is this many columns further on.
[[maybe_unused]] constexpr int kVectorStride = kWarp * 8;
// A warp normalizes this many rows together. They are fewer where the rows are wider, so that the
// sums of these rows, and two batches of their residuals, fit into the registers.
template <int kBlocks>
constexpr int kRowsAtOnce = kBlocks > 2 ? 2 : 4;
// A lane reads eight accumulators of a row at a time. The first four of every lane are stored next
// to each other, and behind a gap the second four, so that neither the stores nor the loads of a
// warp meet bank conflicts. Both constants are in bytes. The second fours begin at kSecondFours,
// and kSumsPitch is the distance from a row to the next.
constexpr int kSecondFours = 2 * kBlockOutputs + 16, kSumsPitch = kSecondFours + 2 * kBlockOutputs;
constexpr int kMostStages = 5, kStagesBytes = 225 << 10;

template <int kTileRows>
struct alignas(1024) SharedStorage {
  static constexpr int kStageBytes = (kBlockOutputs + kTileRows) * kBoxRowBytes;
  static constexpr int kStages = std::min(kMostStages, kStagesBytes / kStageBytes);
  static_assert(kTileRows * kSumsPitch <= kStages * kStageBytes);
  // A stage holds the weights and behind them the rows. After the last product the accumulators are
  // stored here.
  unsigned char stages[kStages][kStageBytes];
  std::uint64_t full[kStages], empty[kStages];

  __device__ std::uint32_t stage_at(int place) const { return shared_address(stages[place]); }
  __device__ std::uint32_t full_at(int place) const { return shared_address(&full[place]); }
  __device__ std::uint32_t empty_at(int place) const { return shared_address(&empty[place]); }
};

// This struct says which rows a block works on. The block computes 256 outputs of all rows of its
// cluster's tile, and it normalizes kRowsPerBlock of these rows.
template <int kTileRows, int kBlocks>
struct BlockRows {
  static constexpr int kRowsPerBlock = kTileRows / kBlocks;
  // Only then does a block's part of the rows begin at an atom of the 128-byte swizzle.
  static_assert(kTileRows % kBlocks == 0 && kRowsPerBlock % 8 == 0);
  static constexpr int kWidth = kBlocks * kBlockOutputs;
  int rank = kBlocks > 1 ? static_cast<int>(rank_in_cluster()) : 0;
  int tile_row = static_cast<int>(blockIdx.x) / kBlocks * kTileRows;
  // The block loads and normalizes rows from this one on, counted from tile_row.
  int first = rank * kRowsPerBlock;
};

// Fills the ring of stages. One thread calls it.
template <class T, int kTileRows, int kBlocks>
__device__ void load_stages(SharedStorage<kTileRows>& memory, const LinearNormArgs<T>& args) {
  const BlockRows<kTileRows, kBlocks> block_rows;
  PipelineState<SharedStorage<kTileRows>::kStages> ring;
  for (int column = 0; column < args.depth; column += kDepth, ring.advance()) {
    wait(memory.empty_at(ring.index), ring.parity ^ 1);
    arrive_expecting(memory.full_at(ring.index), SharedStorage<kTileRows>::kStageBytes);
    load_box(memory.stage_at(ring.index), args.weight, column, block_rows.rank * kBlockOutputs,
             memory.full_at(ring.index));
    const std::uint32_t rows =
        memory.stage_at(ring.index) + (kBlockOutputs + block_rows.first) * kBoxRowBytes;
    if (kBlocks > 1)
      load_box_for((1 << kBlocks) - 1, rows, args.x, column, block_rows.tile_row + block_rows.first,
                   memory.full_at(ring.index));
    else
      load_box(rows, args.x, column, block_rows.tile_row, memory.full_at(ring.index));
  }
}

// Prefetches the block's rows of the residual stream into L2 while the products run. One warp calls
// it.
template <class T, int kTileRows, int kBlocks>
__device__ void prefetch_residuals(const LinearNormArgs<T>& args) {
  const BlockRows<kTileRows, kBlocks> block_rows;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < block_rows.kRowsPerBlock; i += kWarp) {
    const int row = block_rows.tile_row + block_rows.first + i;
    if (row >= args.rows) continue;
    prefetch_bytes(args.residual + row * args.residual_stride, block_rows.kWidth * sizeof(T));
    prefetch_bytes(args.residual_low_bits + row * args.residual_stride, block_rows.kWidth);
  }
}

// This is a thread of the two warpgroups that multiply. A warpgroup computes 128 of the block's
// outputs, 64 in each of `sums`. With kBefore the norm is that before the next sublayer
// (LinearNormArgs::normed).
template <class T, int kTileRows, int kBlocks, bool kBefore>
struct Consumer {
  static constexpr int kAtOnce = kRowsAtOnce<kBlocks>;
  // Without a bias this is added to the accumulators. Adding −0 changes no value, while adding +0
  // turns −0 into +0, which would show in a sum that is stored.
  static constexpr float kNoBias = kBefore ? -0.0f : 0.0f;
  static constexpr int kBatches = (kTileRows / kBlocks + kWarps * kAtOnce - 1) / (kWarps * kAtOnce);

  SharedStorage<kTileRows>& memory;
  const LinearNormArgs<T>& args;
  int warp, lane;
  BlockRows<kTileRows, kBlocks> block_rows;

  __device__ __forceinline__ void multiply_all(float (&sums)[2][kTileRows / 2]) {
    PipelineState<SharedStorage<kTileRows>::kStages> ring;
    const std::uint32_t own = warp / 4 * 128 * kBoxRowBytes;
    std::uint32_t last = 0;
    for (int column = 0; column < args.depth; column += kDepth, ring.advance()) {
      wait(memory.full_at(ring.index), ring.parity);
      const std::uint64_t rows =
                              matrix_at(memory.stage_at(ring.index) + kBlockOutputs * kBoxRowBytes),
                          weights = matrix_at(memory.stage_at(ring.index) + own);
      begin_products();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
          multiply<T>(sums[half], weights + half * (64 * kBoxRowBytes / 16) + 2 * k, rows + 2 * k,
                      column + k > 0);
      }
      commit_products();
      if (column > 0) {
        wait_for_products<1>();
        if (column + (SharedStorage<kTileRows>::kStages - 1) * kDepth < args.depth)
          release(last);  // A stage that no later load uses need not be released.
      }
      last = memory.empty_at(ring.index);
    }
    wait_for_all_products(sums[0]);
    keep_behind(sums[1]);
  }
  // Tells every block of the cluster that this warp has read a stage, because each of them loads
  // rows into the stages of all.
  __device__ __forceinline__ void release(std::uint32_t empty) {
    __syncwarp();
    if (lane < kBlocks) arrive_in(empty, static_cast<std::uint32_t>(lane));
  }

  __device__ __forceinline__ std::uint32_t sums_at(int row) const {
    return shared_address(memory.stages) + row * kSumsPitch;
  }

  __device__ __forceinline__ int first_output() const { return warp / 4 * 128 + warp % 4 * 16; }
  // Loads the bias of the thread's outputs: bias[half][h] belongs to the output 64·half + 8·h
  // behind its first one.
  __device__ __forceinline__ void load_bias(float (&bias)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bias[i / 2][i % 2] =
          args.bias ? to_float(args.bias[block_rows.rank * kBlockOutputs + first_output() +
                                         i / 2 * 64 + i % 2 * 8 + lane / 4])
                    : kNoBias;
    }
  }
  __device__ __forceinline__ void store_accumulators(const float (&sums)[2][kTileRows / 2],
                                                     const float (&bias)[2][2]) {
    const int of_eight = lane / 4;
    const std::uint32_t place = sums_at(2 * (lane % 4)) + 2 * first_output() +
                                of_eight / 4 * kSecondFours + 4 * (of_eight % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kTileRows / 2; ++i) {
        const int h = i / 2 % 2;
        store_shared(place + (i / 4 * 8 + i % 2) * kSumsPitch + 2 * (64 * half + 8 * h),
                     sums[half][i] + bias[half][h]);
      }
    }
  }

  // Each warp normalizes every kWarps-th row of the block's part, kAtOnce rows at a time, which are
  // a `batch` here. Where fewer rows are left, the warp reads other valid rows and does not store
  // the results.
  struct Residuals {
    uint4 vectors[kAtOnce][kBlocks];
    uint2 low_bits[kAtOnce][kBlocks];
  };
  __device__ __forceinline__ int block_row(int batch, int r) const {
    return warp + kWarps * (batch * kAtOnce + r);
  }
  __device__ __forceinline__ void fetch(Residuals& residuals, int batch) {
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      const int from =
          min(block_rows.tile_row + block_rows.first + block_row(batch, r), args.rows - 1) *
              args.residual_stride +
          vector_column<T>(0);
#pragma unroll
      for (int p = 0; p < kBlocks; ++p) {
        residuals.vectors[r][p] = load_vector(args.residual + from + p * kVectorStride);
        residuals.low_bits[r][p] =
            *reinterpret_cast<const uint2*>(args.residual_low_bits + from + p * kVectorStride);
      }
    }
  }
  __device__ __forceinline__ void norm_batch(const Residuals& residuals, int batch) {
    float values[kAtOnce][kBlocks][Vector16<T>::kSize];
#pragma unroll
    for (int p = 0; p < kBlocks; ++p) {
      // Block p of the cluster has vector p of each lane.
      const std::uint32_t there =
          address_in(static_cast<std::uint32_t>(p), sums_at(block_rows.first) + 16 * lane);
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const std::uint32_t from =
            there + min(block_row(batch, r), block_rows.kRowsPerBlock - 1) * kSumsPitch;
#pragma unroll
        for (int i = 0; i < 2; ++i)
          unpack_vector<float>(*reinterpret_cast<float(*)[4]>(values[r][p] + 4 * i),
                               load_from_cluster(from + i * kSecondFours));
        add_vector<T>(values[r][p], residuals.vectors[r][p], residuals.low_bits[r][p]);
      }
    }
    if constexpr (kBefore) {
#pragma unroll
      for (int p = 0; p < kBlocks; ++p) {
#pragma unroll
        for (int r = 0; r < kAtOnce; ++r) store_stream(batch, r, vector_column<T>(p), values[r][p]);
      }
    }
    norm_values<T, kBlocks, kAtOnce, kBefore>(
        values, args.gain, args.shift, block_rows.kWidth, args.epsilon,
        [&](int r, int column, const float(&results)[Vector16<T>::kSize]) {
          if constexpr (kBefore)
            store_normed(batch, r, column, results);
          else
            store_stream(batch, r, column, results);
        },
        args.rms);
  }
  // Stores a vector of a row of the residual stream.
  __device__ __forceinline__ void store_stream(int batch, int r, int column,
                                               const float (&results)[Vector16<T>::kSize]) {
    const int own = block_row(batch, r), row = block_rows.tile_row + block_rows.first + own,
              to = row * args.out_stride + column;
    const uint4 vector = pack_vector<T>(results);
    const uint2 low_bits = packed_low_bits_of<T>(results, vector);
    if (own >= block_rows.kRowsPerBlock || row >= args.rows) return;
    *reinterpret_cast<uint4*>(args.out + to) = vector;
    *reinterpret_cast<uint2*>(args.out_low_bits + to) = low_bits;
  }
  __device__ __forceinline__ void store_normed(int batch, int r, int column,
                                               const float (&results)[Vector16<T>::kSize]) {
    const int own = block_row(batch, r), row = block_rows.tile_row + block_rows.first + own;
    const uint4 vector = pack_vector<T>(results);
    if (own >= block_rows.kRowsPerBlock || row >= args.rows) return;
    *reinterpret_cast<uint4*>(args.normed + row * args.normed_stride + column) = vector;
  }
  __device__ __forceinline__ void norm_all(Residuals& now) {
    Residuals next;
#pragma unroll 1
    for (int batch = 0; batch < kBatches; batch += 2) {
      if (batch + 1 < kBatches) fetch(next, batch + 1);
      norm_batch(now, batch);
      if (batch + 1 == kBatches) break;
      if (batch + 2 < kBatches) fetch(now, batch + 2);
      norm_batch(next, batch + 1);
    }
  }
};

template <class T, int kTileRows, int kBlocks, bool kBefore>
__global__ void __launch_bounds__(kThreads, 1)
    linear_norm_kernel(const __grid_constant__ LinearNormArgs<T> args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  auto& memory = *reinterpret_cast<SharedStorage<kTileRows>*>(shared);
  if (threadIdx.x == 0) {
    prefetch_map(args.x);
    prefetch_map(args.weight);
    for (int i = 0; i < memory.kStages; ++i) {
      init_barrier(shared_address(&memory.full[i]), 1);
      init_barrier(shared_address(&memory.empty[i]), kBlocks * kWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  sync_cluster_relaxed();
  if (threadIdx.x < kWarpgroup) {
    decrease_registers<24>();
    wait_for_primary_kernel();
    if (threadIdx.x == 0)
      load_stages<T, kTileRows, kBlocks>(memory, args);
    else if (threadIdx.x / kWarp == 1)
      prefetch_residuals<T, kTileRows, kBlocks>(args);
    __syncwarp();
    share_with_cluster();
  } else {
    increase_registers<240>();
    wait_for_primary_kernel();
    const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
    Consumer<T, kTileRows, kBlocks, kBefore> consumer{
        memory, args, thread / kWarp, thread % kWarp, {}};
    {
      float bias[2][2], sums[2][kTileRows / 2];
      consumer.load_bias(bias);
      consumer.multiply_all(sums);
      // Both warpgroups must have multiplied before the accumulators overwrite the stages.
      wait_for_turn(1);
      consumer.store_accumulators(sums, bias);
    }
    typename Consumer<T, kTileRows, kBlocks, kBefore>::Residuals first;
    consumer.fetch(first, 0);
    share_with_cluster();
    consumer.norm_all(first);
  }
  // Until this barrier another block may read this block's accumulators. Every block has used the
  // values that it read before it arrives, so a barrier without release and acquire suffices.
  sync_cluster_relaxed();
#else
  __trap();  // linear_norm_supports() returns false for such a device.
#endif
}

template <class T, int kTileRows, int kBlocks, bool kBefore>
void launch(const LinearNormArgs<T>& args, cudaStream_t stream) {
  const auto kernel = linear_norm_kernel<T, kTileRows, kBlocks, kBefore>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       sizeof(SharedStorage<kTileRows>));
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {kBlocks, 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((args.rows + kTileRows - 1) / kTileRows * kBlocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(SharedStorage<kTileRows>);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  cudaLaunchKernelEx(&config, kernel, args);
}

template <class T, int kTileRows, bool kBefore>
void launch_width(const LinearNormArgs<T>& args, cudaStream_t stream) {
  switch (args.width / kBlockOutputs) {
    case 1:
      return launch<T, kTileRows, 1, kBefore>(args, stream);
    case 2:
      return launch<T, kTileRows, 2, kBefore>(args, stream);
    case 3:
      if constexpr (kTileRows % 24 == 0) return launch<T, kTileRows, 3, kBefore>(args, stream);
      return;  // linear_norm_tile() returns no other tile for this width.
    default:
      return launch<T, kTileRows, 4, kBefore>(args, stream);
  }
}

template <class T, bool kBefore>
void launch_tile(const LinearNormArgs<T>& args, cudaStream_t stream) {
  switch (args.tile_rows) {
    case 64:
      return launch_width<T, 64, kBefore>(args, stream);
    case 96:
      return launch_width<T, 96, kBefore>(args, stream);
    case 128:
      return launch_width<T, 128, kBefore>(args, stream);
    case 160:
      return launch_width<T, 160, kBefore>(args, stream);
    default:
      return launch_width<T, 192, kBefore>(args, stream);
  }
}

}  // namespace
}  // namespace xlate::cuda
