// Attention of a decoding step as a stream of cache rows, for compute capability 9.0. Each SM has
// two blocks, or one if the rows are long or the heads many, and the blocks process beam tiles. One
// warp of a block, the loading warp, has the TMA copy cache rows, which are the keys and values of
// all heads, into a ring of stages in shared memory. So the next rows are on their way while the
// other warps compute with the present ones. A stage holds up to 16 keys, and the first stage of a
// beam tile also holds its queries. A team has one warp for each head (beam_tile.cuh), and the
// teams of a block take beam tiles in turn.
//
// The sums are those of step.cu. There a warp waits for the rows that it loads, and self-attention
// reached 54 to 72 % and cross-attention 63 to 78 % of the memory bandwidth of an H100.
// docs/kernels/attention.md describes this kernel.
#include <cuda.h>

#include <algorithm>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/beam_tile.cuh"
#include "engine/cuda/hopper.cuh"

namespace xlate::cuda {
namespace {

// Bytes behind a row in a stage. With them the loads of values meet no bank conflicts. The loads of
// keys, of which eight lanes read two rows at once, meet conflicts of two lanes.
constexpr int kRowPadding = 80;
// Each stage has a named barrier, from number 1 on. A block has 16 of them and __syncthreads uses
// number 0, so there may be at most 15 stages.
constexpr int kMostStages = 8, kLeastStages = 2;
constexpr int kMostWarps = 16;  // This is per SM, without the loading warps.
// An SM has at most this many blocks. Two blocks, which have two loading warps, were faster than
// one. A loading warp issues a row's copy about every 50 clocks, which explains only a part of the
// gain (docs/kernels/attention.md).
constexpr int kMostBlocks = 2;
// An SM has up to 18 warps, so one of its four partitions has up to five. The 16,384 registers of a
// partition are then 102 for each thread, and a thread's number of registers must be a multiple of
// 8.
constexpr int kRegisters = 96;

// The header of a stage says what the stage holds.
struct alignas(16) StageHeader {
  // `team` is the team that the stage is for. If it is negative, the stage holds nothing and is the
  // last one of the block. `beams` is the number of beams in the beam tile.
  int team, beams;
  int first_row;  // The row of the beam tile's first query and of its first output.
  // `queries` says whether the stage begins with the queries, `keys` is the number of its keys, and
  // `last` says whether they are the last ones of the beam tile.
  int queries, keys, last;
  // `first_key` is the place of the first key in the stage, counted in rows. `new_key` is the
  // number of the first new key among the stage's keys, or `keys` or more if it has none.
  // `new_key_beam` is the beam of that key, counted within the beam tile. `new_key_row` is the
  // cache row for the new key of the beam tile's first beam; those of the other beams follow.
  int first_key, new_key, new_key_beam, new_key_row;
  unsigned beam_mask[kTileKeys];
};

template <class T>
struct StreamArgs {
  AttendArgs<T> rows;
  T* cache;  // [cache rows, 2·D]
  KeyLists lists;
  // `query_rows` is the number of rows that a stage has for queries. A row holds two of them.
  int beam_tiles, beams, query_rows, stages;
};

// Returns the pitch of the rows in a stage. A row holds a key and its value, or two queries.
template <class T>
__host__ __device__ int row_bytes(const AttendArgs<T>& rows) {
  return static_cast<int>(rows.width) * 2 * static_cast<int>(sizeof(T)) + kRowPadding;
}

template <class T>
__host__ __device__ int stage_bytes(const AttendArgs<T>& rows, int query_rows) {
  return (kTileKeys + query_rows) * row_bytes(rows);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The ring of stages in the shared memory of a block, and a warp's position in it. An mbarrier for
// each stage says that the stage is full, and a named barrier says that it is empty again. The
// computing warps arrive at the named barrier without waiting. All lanes of a warp arrive, because
// each of them has read from the stage.
struct Ring {
  char* stages;
  StageHeader* headers;
  std::uint64_t* barriers;
  int count, bytes;
  int at = 0;
  bool again = false;  // This says whether the present stage has been in use before.
  std::uint32_t parity = 0;
  __device__ Ring(char* shared, int count, int bytes)
      : stages(shared),
        headers(reinterpret_cast<StageHeader*>(shared + count * bytes)),
        barriers(reinterpret_cast<std::uint64_t*>(headers + count)),
        count(count),
        bytes(bytes) {}
  __device__ std::uint32_t full() const { return shared_address(barriers + at); }
  __device__ void release() const {
    asm volatile("barrier.arrive %0, %1;" ::"r"(at + 1), "r"(blockDim.x) : "memory");
  }
  __device__ void wait_until_released(int stage) const {
    asm volatile("barrier.sync %0, %1;" ::"r"(stage + 1), "r"(blockDim.x) : "memory");
  }
  __device__ void wait_until_empty() const {
    if (again) wait_until_released(at);
  }
  __device__ char* stage() const { return stages + at * bytes; }
  __device__ StageHeader& header() const { return headers[at]; }
  __device__ void next() {
    if (++at == count) at = 0, parity ^= 1, again = true;
  }
};

// The first row of a beam tile and the number of its beams; `all` is the number of beams of a
// group.
struct BeamTileRows {
  std::int64_t first_row;
  int beams;
  __device__ BeamTileRows(int beam_tile, int all) {
    const int beam_tiles = (all + kTileBeams - 1) / kTileBeams,
              first_beam = beam_tile % beam_tiles * kTileBeams;
    first_row = static_cast<std::int64_t>(beam_tile / beam_tiles) * all + first_beam;
    beams = min(kTileBeams, all - first_beam);
  }
};

// Ahead holds what the loading warp reads early of a later beam tile: its number, the header of its
// list, and the first 32 entries of the list, one in each lane.
struct Ahead {
  int index;
  int2 head;
  KeyEntry entry;
};

// Does the work of the loading warp. New keys and values are loaded from the rows that the product
// in front has written, because the cache does not have them yet; the computing warps copy them
// from the stage to the cache. The numbers of beam tiles and their lists are in global memory too,
// so they are read in advance: the number of a beam tile three beam tiles earlier, the beginning of
// its list two beam tiles earlier, and the rest of the list two stages earlier.
template <class T, bool kSelf>
__device__ void load_stages(const StreamArgs<T>& args, Ring ring, int teams) {
  const int lane = threadIdx.x % kWarp, width = static_cast<int>(args.rows.width),
            row_pitch = row_bytes(args.rows), row = 2 * width * static_cast<int>(sizeof(T));
  const auto take = [&] {
    return lane == 0 ? static_cast<int>(gridDim.x) + atomicAdd(args.lists.taken, 1) : 0;
  };
  const auto look_up = [&](int index) {
    if (index >= args.beam_tiles) return Ahead{index, {}, {}};
    return Ahead{index, args.lists.headers[index],
                 args.lists.entries[index * args.lists.stride + lane]};
  };
  int team = 0, taken = take();
  Ahead ahead[2] = {look_up(blockIdx.x), look_up(__shfl_sync(kAllLanes, taken, 0))};
  taken = take();
  while (ahead[0].index < args.beam_tiles) {
    const int index = ahead[0].index;
    const int2 head = ahead[0].head;
    KeyEntry entries = ahead[0].entry;
    ahead[0] = ahead[1];
    ahead[1] = look_up(__shfl_sync(kAllLanes, taken, 0));
    taken = take();
    const KeyEntry* list = args.lists.entries + index * args.lists.stride;
    KeyEntry next_entries{};
    const BeamTileRows beam_tile(index, args.beams);
    const T* rows = args.rows.query + beam_tile.first_row * args.rows.query_stride;
    const int own = kSelf ? head.x - beam_tile.beams : head.x;
    for (int first = 0; first < head.x; first += kTileKeys) {
      const int keys = min(kTileKeys, head.x - first), key = first + lane;
      if (first % kWarp == 0) {
        if (first > 0) entries = next_entries;
        if (key + kWarp < head.x) next_entries = list[key + kWarp];
      }
      const KeyEntry entry{__shfl_sync(kAllLanes, entries.row, key),
                           __shfl_sync(kAllLanes, entries.beam_mask, key)};
      ring.wait_until_empty();
      StageHeader& header = ring.header();
      if (lane < kTileKeys) header.beam_mask[lane] = lane < keys ? entry.beam_mask : 0;
      if (lane == 0) {
        header.team = team, header.beams = beam_tile.beams,
        header.first_row = static_cast<int>(beam_tile.first_row);
        header.queries = first == 0, header.keys = keys, header.last = first + keys == head.x;
        header.first_key = first == 0 ? (beam_tile.beams + 1) / 2 : 0;
        header.new_key = max(own - first, 0), header.new_key_beam = max(first - own, 0),
        header.new_key_row = head.y;
      }
      if (lane == 0)
        arrive_expecting(ring.full(), keys * row + (first == 0 ? beam_tile.beams * row / 2 : 0));
      else
        arrive(ring.full());  // Each lane arrives, because it has written to the header.
      __syncwarp();
      const std::uint32_t stage = shared_address(ring.stage());
      const int first_key = first == 0 ? (beam_tile.beams + 1) / 2 : 0;
      if (first == 0 && lane < beam_tile.beams)
        load_bytes(stage + lane / 2 * row_pitch + lane % 2 * (row / 2),
                   rows + lane * args.rows.query_stride, row / 2, ring.full());
      if (lane < keys) {
        const T* from = key < own ? args.cache + static_cast<std::int64_t>(entry.row) * 2 * width
                                  : rows + (key - own) * args.rows.query_stride + width;
        load_bytes(stage + (first_key + lane) * row_pitch, from, row, ring.full());
      }
      ring.next();
    }
    if (head.x > 0) team = team + 1 == teams ? 0 : team + 1;
  }
  ring.wait_until_empty();
  if (lane == 0) ring.header().team = -1;
  arrive(ring.full());
  // The releases that are still due are waited for, so that no barrier is left with some arrivals.
  for (int stage = 0; stage < ring.count; ++stage) {
    if (stage < ring.at || (ring.again && stage > ring.at)) ring.wait_until_released(stage);
  }
}

// Does the work of a computing warp, which has one head and belongs to one team. It releases every
// stage, also those of other teams.
template <class T, int kHead, bool kSelf, bool kUsual>
__device__ void work(const StreamArgs<T>& args, Ring ring, int team, int head) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4,
            width = static_cast<int>(args.rows.width);
  const int row_pitch = row_bytes(args.rows) / static_cast<int>(sizeof(T));
  BeamTile<T, kHead> tile;
  const HeadBias bias(args.rows, head);
  for (;; ring.next()) {
    wait(ring.full(), ring.parity);
    const StageHeader& header = ring.header();
    if (header.team < 0) return;
    if (header.team == team) {
      const T* stage = reinterpret_cast<const T*>(ring.stage()) + head * kHead;
      if (header.queries)
        tile.begin(g < header.beams ? stage + g / 2 * row_pitch + g % 2 * width : nullptr);
      const T* keys = stage + header.first_key * row_pitch;
      // The last key replaces those that the stage does not have. No beam attends to these.
      const int last_key = header.keys - 1;
      const auto key_at = [&](int i) { return keys + min(i, last_key) * row_pitch; };
      const T* const key[2] = {key_at(g), key_at(g + 8)};
      const unsigned beam_mask[2] = {header.beam_mask[g], header.beam_mask[g + 8]};
      const T* const value[4] = {key_at(2 * t) + width, key_at(2 * t + 1) + width,
                                 key_at(2 * t + 8) + width, key_at(2 * t + 9) + width};
      tile.add(key, beam_mask, value, scores_of<kUsual, kHead>(args.rows.scale, bias, beam_mask));
      if (kSelf) {
        constexpr int kVectors = kHead / 8;
        const int count = min(header.beams - header.new_key_beam, kTileKeys - header.new_key);
        for (int i = lane; i < count * 2 * kVectors; i += kWarp) {
          const int which = i / kVectors % 2 * width + i % kVectors * 8, beam = i / (2 * kVectors);
          *reinterpret_cast<uint4*>(
              args.cache +
              static_cast<std::int64_t>(header.new_key_row + header.new_key_beam + beam) * 2 *
                  width +
              head * kHead + which) =
              *reinterpret_cast<const uint4*>(keys + (header.new_key + beam) * row_pitch + which);
        }
      }
      if (header.last)
        tile.end(args.rows.out + header.first_row * args.rows.out_stride + head * kHead,
                 args.rows.out_stride, header.beams);
    }
    __syncwarp();
    ring.release();
  }
}

#endif

template <class T, int kHead, bool kSelf, bool kUsual>
__global__ void __maxnreg__(kRegisters) stream_kernel(const StreamArgs<T> args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) char shared[];
  const Ring ring(shared, args.stages, stage_bytes(args.rows, args.query_rows));
  const int workers = static_cast<int>(blockDim.x) / kWarp - 1, warp = threadIdx.x / kWarp;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) init_barrier(shared_address(ring.barriers + i), kWarp);
    publish_barriers();
  }
  launch_dependents();
  __syncthreads();
  if (warp == workers)
    load_stages<T, kSelf>(args, ring, workers / args.rows.heads);
  else
    work<T, kHead, kSelf, kUsual>(args, ring, warp / args.rows.heads, warp % args.rows.heads);
#else
  __trap();
#endif
}

// Limits of the device. The amounts of shared memory are in bytes: of an SM, of a block, and what
// the system reserves for each block.
struct Device {
  int multiprocessors = 0, shared_bytes = 0, block_bytes = 0, reserved = 0, capability = 0;
};

Device present_device() {
  Device device;
  int number = 0, major = 0, minor = 0;
  cudaGetDevice(&number);
  cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, number);
  cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, number);
  cudaDeviceGetAttribute(&device.block_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
  cudaDeviceGetAttribute(&device.reserved, cudaDevAttrReservedSharedMemoryPerBlock, number);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, number);
  device.capability = 10 * major + minor;
  return device;
}

// Launches the kernel with as many stages as fit, up to kMostStages, and returns true. Returns
// false if the device or the shapes do not allow it.
template <class T, bool kSelf>
bool stream(const AttendArgs<T>& rows, const CacheView& cache, const StepRows& step,
            const KeyLists& lists, cudaStream_t stream) {
  const Device device = present_device();
  const int fixed = static_cast<int>(sizeof(StageHeader) + sizeof(std::uint64_t));
  // A row of a stage holds two queries, since a query is half as long as a key with its value.
  const int query_rows = (std::min(static_cast<int>(step.beams), kTileBeams) + 1) / 2,
            stage = stage_bytes(rows, query_rows) + fixed;
  const auto stages_of = [&](int blocks) {
    return std::min({kMostStages, device.block_bytes / stage,
                     (device.shared_bytes / blocks - device.reserved) / stage});
  };
  const int blocks_each =
                rows.heads <= kMostWarps / kMostBlocks && stages_of(kMostBlocks) >= kLeastStages
                    ? kMostBlocks
                    : 1,
            stages = stages_of(blocks_each);
  if (device.capability != 90 || lists.launches == 0 || !step_attention_fits<T, kSelf>(rows) ||
      rows.heads > kMostWarps || stages < kLeastStages)
    return false;
  const auto beam_tiles = static_cast<int>(key_list_count(step.groups, step.beams));
  const StreamArgs<T> args{rows,       static_cast<T*>(cache.pages), lists,
                           beam_tiles, static_cast<int>(step.beams), query_rows,
                           stages};
  const int warps = kMostWarps / blocks_each / rows.heads * rows.heads;
  const std::size_t bytes = static_cast<std::size_t>(stages) * static_cast<std::size_t>(stage);
  const auto blocks =
      static_cast<unsigned>(std::min(beam_tiles, blocks_each * device.multiprocessors));
  with_head(rows.width / rows.heads, [&](auto head) {
    with_scores(rows, [&](auto usual) {
      const auto kernel = stream_kernel<T, head, kSelf, usual>;
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(bytes));
      kernel<<<blocks, (warps + 1) * kWarp, bytes, stream>>>(args);
    });
  });
  return true;
}

}  // namespace

template <class T>
bool stream_self(const AttendArgs<T>& args, const CacheView& cache, const StepRows& rows,
                 const KeyLists& lists, cudaStream_t queue) {
  return stream<T, true>(args, cache, rows, lists, queue);
}

template <class T>
bool stream_cross(const AttendArgs<T>& args, const CacheView& cache, const StepRows& rows,
                  const KeyLists& lists, cudaStream_t queue) {
  return stream<T, false>(args, cache, rows, lists, queue);
}

#define INSTANTIATE(T)                                                                   \
  template bool stream_self<T>(const AttendArgs<T>&, const CacheView&, const StepRows&,  \
                               const KeyLists&, cudaStream_t);                           \
  template bool stream_cross<T>(const AttendArgs<T>&, const CacheView&, const StepRows&, \
                                const KeyLists&, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
