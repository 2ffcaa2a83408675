// Attention of a decoding step as a stream of rows (compute capability 9.0): two blocks an SM, or
// one where rows are long, walk over sentences, and one of a block's warps has the copy engine
// bring the cache's rows, keys and values of all heads at once, through a ring of stages in shared
// memory, so that memory is asked for the next rows while the present ones are worked on. Stages
// hold up to 16 keys and, for a sentence's first, its queries. A warp takes a head (beam_tile.cuh);
// teams of warps, one warp a head, take sentences in turn. Same sums as step.cu, whose kernels wait
// for each row: there 54 to 72 % of an H100's memory rate.
#include <cuda.h>

#include <algorithm>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/attention/beam_tile.cuh"
#include "engine/cuda/hopper.cuh"

namespace xlate::cuda {
namespace {

constexpr int kSlotGap =
    80;  // bytes behind a row: lanes that read 4 rows or 8 at once meet no bank twice
constexpr int kMostStages = 8, kLeastStages = 2;
constexpr int kMostWarps = 16;  // of an SM, beside those that bring rows
// The warp that brings rows gives one to the copy engine in some 50 clocks, which would be the
// bound if it were alone on an SM.
constexpr int kMostBlocks = 2;
constexpr int kRegisters = 96;  // with 17 or 18 warps on an SM one of its quarters has 5

/// What a stage holds. The end of all is a stage of no team.
struct alignas(16) Header {
  int team, beams;
  int first_row;            // of the part's queries
  int queries, keys, last;  // whether they are there; how many; whether no more follow
  int first_key, own_key, own_beam, own_row;  // slot of the first; which of the stage's keys is the
                                              // first new one, whose beam, and where it belongs
  unsigned viewers[kTileKeys];
};

template <class T>
struct StreamArgs {
  AttendArgs<T> rows;
  T* cache;  // rows of keys and values, [·, 2·D]
  KeyLists lists;
  int parts, beams, query_slots, stages;
};

template <class T>
__host__ __device__ int slot_bytes(const AttendArgs<T>& rows) {
  return static_cast<int>(rows.width) * 2 * static_cast<int>(sizeof(T)) + kSlotGap;
}

template <class T>
__host__ __device__ int stage_bytes(const AttendArgs<T>& rows, int query_slots) {
  return (kTileKeys + query_slots) * slot_bytes(rows);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The shared memory of a block: stages, their headers, and a barrier for each that says when it is
// full. That it is empty again is said by a named barrier, at which a warp arrives with all its
// lanes and without a wait: each of them has read.
struct Ring {
  char* stages;
  Header* headers;
  std::uint64_t* barriers;
  int count, bytes;
  int at = 0;
  bool again = false;  // whether the present stage was in use before
  std::uint32_t parity = 0;
  __device__ Ring(char* shared, int count, int bytes)
      : stages(shared),
        headers(reinterpret_cast<Header*>(shared + count * bytes)),
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
  __device__ Header& header() const { return headers[at]; }
  __device__ void next() {
    if (++at == count) at = 0, parity ^= 1, again = true;
  }
};

// Which beams of which group a part is.
struct Part {
  std::int64_t first_row;
  int beams;
  __device__ Part(int part, int all) {
    const int parts = (all + kTileBeams - 1) / kTileBeams, first_beam = part % parts * kTileBeams;
    first_row = static_cast<std::int64_t>(part / parts) * all + first_beam;
    beams = min(kTileBeams, all - first_beam);
  }
};

// A part that is to be worked on: whoever brings its rows asks for these early.
struct Ahead {
  int index;
  int2 head;
  KeyEntry entry;  // a lane's, of the first 32
};

// The warp that brings rows. New keys come from the products' rows; the cache gets them from the
// stage. What says where rows are comes from memory too: a part's number is asked for three parts
// earlier, its list's beginning two, and the rest of a list two stages.
template <class T, bool kOwn>
__device__ void bring(const StreamArgs<T>& args, Ring ring, int teams) {
  const int lane = threadIdx.x % kWarp, width = static_cast<int>(args.rows.width),
            slot = slot_bytes(args.rows), row = 2 * width * static_cast<int>(sizeof(T));
  const auto take = [&] {
    return lane == 0 ? static_cast<int>(gridDim.x) + atomicAdd(args.lists.taken, 1) : 0;
  };
  const auto look_up = [&](int index) {
    if (index >= args.parts) return Ahead{index, {}, {}};
    return Ahead{index, args.lists.heads[index],
                 args.lists.entries[index * args.lists.stride + lane]};
  };
  int team = 0, taken = take();
  Ahead ahead[2] = {look_up(blockIdx.x), look_up(__shfl_sync(kAllLanes, taken, 0))};
  taken = take();
  while (ahead[0].index < args.parts) {
    const int index = ahead[0].index;
    const int2 head = ahead[0].head;
    KeyEntry window = ahead[0].entry;
    ahead[0] = ahead[1];
    ahead[1] = look_up(__shfl_sync(kAllLanes, taken, 0));
    taken = take();
    const KeyEntry* list = args.lists.entries + index * args.lists.stride;
    KeyEntry window_after{};
    const Part part(index, args.beams);
    const T* rows = args.rows.query + part.first_row * args.rows.query_stride;
    const int own = kOwn ? head.x - part.beams : head.x;
    for (int first = 0; first < head.x; first += kTileKeys) {
      const int keys = min(kTileKeys, head.x - first), key = first + lane;
      if (first % kWarp == 0) {
        if (first > 0) window = window_after;
        if (key + kWarp < head.x) window_after = list[key + kWarp];
      }
      const KeyEntry entry{__shfl_sync(kAllLanes, window.row, key),
                           __shfl_sync(kAllLanes, window.viewers, key)};
      ring.wait_until_empty();
      Header& header = ring.header();
      if (lane < kTileKeys) header.viewers[lane] = lane < keys ? entry.viewers : 0;
      if (lane == 0) {
        header.team = team, header.beams = part.beams,
        header.first_row = static_cast<int>(part.first_row);
        header.queries = first == 0, header.keys = keys, header.last = first + keys == head.x;
        header.first_key = first == 0 ? (part.beams + 1) / 2 : 0;
        header.own_key = max(own - first, 0), header.own_beam = max(first - own, 0),
        header.own_row = head.y;
      }
      if (lane == 0)
        arrive_expecting(ring.full(), keys * row + (first == 0 ? part.beams * row / 2 : 0));
      else
        arrive(ring.full());  // each lane has written to the header
      __syncwarp();
      const std::uint32_t stage = shared_address(ring.stage());
      const int first_key = first == 0 ? (part.beams + 1) / 2 : 0;
      if (first == 0 && lane < part.beams)
        load_bytes(stage + lane / 2 * slot + lane % 2 * (row / 2),
                   rows + lane * args.rows.query_stride, row / 2, ring.full());
      if (lane < keys) {
        const T* from = key < own ? args.cache + static_cast<std::int64_t>(entry.row) * 2 * width
                                  : rows + (key - own) * args.rows.query_stride + width;
        load_bytes(stage + (first_key + lane) * slot, from, row, ring.full());
      }
      ring.next();
    }
    if (head.x > 0) team = team + 1 == teams ? 0 : team + 1;
  }
  ring.wait_until_empty();
  if (lane == 0) ring.header().team = -1;
  arrive(ring.full());
  for (int stage = 0; stage < ring.count; ++stage) {  // no barrier is left half-way
    if (stage < ring.at || (ring.again && stage > ring.at)) ring.wait_until_released(stage);
  }
}

template <class T, int kHead, bool kOwn>
__device__ void work(const StreamArgs<T>& args, Ring ring, int team, int head) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4,
            width = static_cast<int>(args.rows.width);
  const int slot = slot_bytes(args.rows) / static_cast<int>(sizeof(T));
  BeamTile<T, kHead> tile;
  for (;; ring.next()) {
    wait(ring.full(), ring.parity);
    const Header& header = ring.header();
    if (header.team < 0) return;
    if (header.team == team) {
      const T* stage = reinterpret_cast<const T*>(ring.stage()) + head * kHead;
      if (header.queries)
        tile.begin(g < header.beams ? stage + g / 2 * slot + g % 2 * width : nullptr);
      const T* keys = stage + header.first_key * slot;
      const int last_key =
          header.keys - 1;  // stands in for those that are not there, which nobody sees
      const auto key_at = [&](int i) { return keys + min(i, last_key) * slot; };
      const T* const key[2] = {key_at(g), key_at(g + 8)};
      const unsigned viewers[2] = {header.viewers[g], header.viewers[g + 8]};
      const T* const value[4] = {key_at(2 * t) + width, key_at(2 * t + 1) + width,
                                 key_at(2 * t + 8) + width, key_at(2 * t + 9) + width};
      tile.add(key, viewers, value);
      if (kOwn) {
        constexpr int kPieces = kHead / 8;
        const int count = min(header.beams - header.own_beam, kTileKeys - header.own_key);
        for (int i = lane; i < count * 2 * kPieces; i += kWarp) {
          const int which = i / kPieces % 2 * width + i % kPieces * 8, beam = i / (2 * kPieces);
          *reinterpret_cast<uint4*>(
              args.cache +
              static_cast<std::int64_t>(header.own_row + header.own_beam + beam) * 2 * width +
              head * kHead + which) =
              *reinterpret_cast<const uint4*>(keys + (header.own_key + beam) * slot + which);
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

template <class T, int kHead, bool kOwn>
__global__ void __maxnreg__(kRegisters) stream_kernel(const StreamArgs<T> args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(128) char shared[];
  const Ring ring(shared, args.stages, stage_bytes(args.rows, args.query_slots));
  const int workers = static_cast<int>(blockDim.x) / kWarp - 1, warp = threadIdx.x / kWarp;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) init_barrier(shared_address(ring.barriers + i), kWarp);
    publish_barriers();
  }
  let_next_start();
  __syncthreads();
  if (warp == workers)
    bring<T, kOwn>(args, ring, workers / args.rows.heads);
  else
    work<T, kHead, kOwn>(args, ring, warp / args.rows.heads, warp % args.rows.heads);
#else
  __trap();
#endif
}

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

template <class T, bool kOwn>
bool stream(const AttendArgs<T>& rows, const CacheView& cache, const StepRows& step,
            const KeyLists& lists, cudaStream_t stream) {
  const Device device = present_device();
  const int fixed = static_cast<int>(sizeof(Header) + sizeof(std::uint64_t));
  // A query is half as long as a key with its value.
  const int query_slots = (std::min(static_cast<int>(step.beams), kTileBeams) + 1) / 2,
            stage = stage_bytes(rows, query_slots) + fixed;
  const auto stages_of = [&](int blocks) {
    return std::min({kMostStages, device.block_bytes / stage,
                     (device.shared_bytes / blocks - device.reserved) / stage});
  };
  const int blocks_each =
                rows.heads <= kMostWarps / kMostBlocks && stages_of(kMostBlocks) >= kLeastStages
                    ? kMostBlocks
                    : 1,
            stages = stages_of(blocks_each);
  if (device.capability != 90 || lists.launches == 0 || !tile_attention_fits(rows) ||
      rows.heads > kMostWarps || stages < kLeastStages)
    return false;
  const auto parts = static_cast<int>(key_list_parts(step.groups, step.beams));
  const StreamArgs<T> args{rows,  static_cast<T*>(cache.pages), lists,
                           parts, static_cast<int>(step.beams), query_slots,
                           stages};
  const int warps = kMostWarps / blocks_each / rows.heads * rows.heads;
  const std::size_t bytes = static_cast<std::size_t>(stages) * static_cast<std::size_t>(stage);
  with_head(rows.width / rows.heads, [&](auto head) {
    cudaFuncSetAttribute(stream_kernel<T, head, kOwn>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
    const auto blocks =
        static_cast<unsigned>(std::min(parts, blocks_each * device.multiprocessors));
    stream_kernel<T, head, kOwn><<<blocks, (warps + 1) * kWarp, bytes, stream>>>(args);
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
