// The kernel of engine/cuda/few_rows.h: one block a multiprocessor, all of them resident (a cooperative launch), work through the program,
// perhaps several steps one after another. Between two operations every block meets every other. Before it waits it asks for what its next operation reads and no earlier one
// writes: its share of the weights, the cached keys; so memory is never waited for in the row of dependent steps. Sums in float32.
#include "engine/cuda/advance.cuh"
#include "engine/cuda/few_attention.cuh"
#include "engine/cuda/few_product.cuh"
#include "engine/cuda/few_vocabulary.cuh"

namespace xlate::cuda {
namespace {

// A count of all arrivals ever: in a launch of n blocks the k-th meeting is over when it is n·k above its first, a multiple of n.
__device__ void arrive(unsigned long long* met) {
  if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u64 [%0], 1;" ::"l"(met) : "memory");
}
__device__ unsigned long long arrivals(const unsigned long long* met) {
  unsigned long long count;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(count) : "l"(met) : "memory");
  return count;
}
__device__ void meet(const unsigned long long* met, unsigned long long count) {
  if (threadIdx.x == 0) {
    while (arrivals(met) < count) {
    }
  }
  wait_fetched();
  __syncthreads();
}

// What the operations ask of the step's rows, once a step: it lies far away in memory.
__device__ void look_at_rows(const FewProgram& program, FewShared& shared, bool first_time) {
  const int row = threadIdx.x;
  if (!program.rows.slots || row >= program.rows.groups * program.rows.beams) return;
  const SearchState& state = program.state;
  const int beams = static_cast<int>(program.rows.beams), slot = first_time ? program.rows.slots[row / beams] : shared.slot[row];
  if (slot >= 0) {
    const bool done = state.done && __ldcg(state.done + slot);
    shared.length[row] = state.length ? __ldcg(state.length + slot) : 0;
    shared.token[row] = state.token ? __ldcg(state.token + slot * beams + row % beams) : 0;
    if (first_time) shared.source[row] = program.source_lengths ? program.source_lengths[slot] : 0;
    shared.slot[row] = done ? -1 : slot;
  } else {
    shared.slot[row] = -1;
  }
}

// Whether no group of the step is still being decoded. Blocks agree: only the last operation writes what they look at.
__device__ bool in_vain(const FewProgram& program, const FewShared& shared) {
  if (!program.state.done) return false;
  for (int row = 0; row < program.rows.groups * program.rows.beams; ++row) {
    if (shared.slot[row] >= 0) return false;
  }
  return true;
}

template <class T>
__device__ __forceinline__ void embed_rows(const FewOp& op, const FewShared& shared) {
  for (int row = blockIdx.x; row < op.rows; row += gridDim.x) {
    const bool step = op.kind == FewKind::kEmbedStep;
    if (step && shared.slot[row] < 0) continue;
    const std::int64_t id = step ? shared.token[row] : op.ids[row], place = step ? shared.length[row] : op.places[row];
    const T* table = static_cast<const T*>(op.x) + id * op.x_stride;
    const float* position = op.positions + place * op.added_stride;
    T* out = static_cast<T*>(op.out_rows) + row * op.out_stride;
#pragma unroll 2
    for (int i = threadIdx.x; i < op.in; i += kFewThreads) out[i] = from_float<T>(to_float(table[i]) * op.scale + position[i]);
  }
}

__device__ __forceinline__ Books& books_of(FewShared& shared) { return *reinterpret_cast<Books*>(shared.ahead); }

__device__ __forceinline__ void look_ahead_at_books(const FewProgram& program, FewShared& shared) {
  if (static_cast<std::int64_t>(blockIdx.x) >= program.rows.groups) return;
  const int slot = shared.slot[blockIdx.x * program.rows.beams];
  if (slot >= 0) open_books(program.rules, program.count_of_best, program.state, slot, books_of(shared));
}

// Not inlined: it is the last, and needs registers.
__device__ __noinline__ void advance(const FewProgram& program, FewShared& shared) {
  const int group = blockIdx.x, beams = static_cast<int>(program.rows.beams), beam = threadIdx.x / kWarp, count = program.count_of_best;
  if (group >= program.rows.groups) return;
  const int slot = shared.slot[group * beams];
  if (slot < 0) return;
  auto* best = reinterpret_cast<FewBest*>(shared.sums);
  const int room = count * (count + 2);
  if (beam < beams) merge_parts(program, group * beams + beam, best + beam * room);
  advance_slot<kFewRows>(program.rules, [&](int k, int i) { return best[k * room + i]; }, count, program.state, slot, books_of(shared));
}

// To the host's memory: what the step has come to, without a copy of its own on the stream.
__device__ void copy_out(const FewProgram& program) {
  if (blockIdx.x != 0 || !program.copy_to) return;
  __syncthreads();
  for (int i = threadIdx.x; i < program.copy_words; i += kFewThreads) program.copy_to[i] = program.copy_from[i];
}

template <class T>
__device__ __forceinline__ void look_ahead(const FewOp& op, const FewProgram& program, FewShared& shared, float& bias) {
  if (op.gain) {
    const int half = op.in / 4;
    for (int i = threadIdx.x; i < 2 * half; i += kFewThreads) fetch(shared.gain + i, i < half ? op.gain + 4 * i : op.shift + 4 * (i - half));
  }
  if (op.kind == FewKind::kLinear) fetch_weights<T>(op, share_of(op), 0, 0, shared), bias = load_bias<T>(op);
  else if (op.kind == FewKind::kSelf || op.kind == FewKind::kCross) look_ahead_at_keys<T>(op, program, shared);
  else if (op.kind == FewKind::kVocabulary) look_ahead_at_vocabulary<T>(op, shared);
  else if (op.kind == FewKind::kAdvance) look_ahead_at_books(program, shared);
}

// Brings into L2 what look_ahead will fetch for the operation after the next.
template <class T>
__device__ __forceinline__ void approach(const FewOp& op, const FewProgram& program, FewShared& shared) {
  if (op.kind == FewKind::kLinear) approach_weights<T>(op);
  else if (op.kind == FewKind::kSelf || op.kind == FewKind::kCross) approach_keys<T>(op, program, shared);
}

template <class T>
__device__ __forceinline__ void run(const FewOp& op, const FewProgram& program, FewShared& shared, float bias) {
  switch (op.kind) {
    case FewKind::kEmbed:
    case FewKind::kEmbedStep: return embed_rows<T>(op, shared);
    case FewKind::kNorm: return norm_alone<T>(op, shared);
    case FewKind::kLinear: return product<T>(op, shared, bias);
    case FewKind::kPacked: return attention_packed<T>(op);
    case FewKind::kSelf:
    case FewKind::kCross: return attention<T>(op, program, shared);
    case FewKind::kVocabulary: return vocabulary<T>(op, program, shared);
    case FewKind::kAdvance: return advance(program, shared);
  }
}

template <class T>
__global__ void __launch_bounds__(kFewThreads, 1) few_rows_kernel(const __grid_constant__ FewProgram program, unsigned long long* met) {
  extern __shared__ uint4 memory[];
  FewShared& shared = *reinterpret_cast<FewShared*>(memory);
  const int count = program.count;
  const auto* from = reinterpret_cast<const uint4*>(program.ops);
  for (int i = threadIdx.x; i < count * static_cast<int>(sizeof(FewOp) / 16); i += kFewThreads) memory[i] = from[i];
  unsigned long long meeting = 0;
  if (threadIdx.x == 0) meeting = arrivals(met) / gridDim.x * gridDim.x;
  float bias = 0;
  // The first of either kind of attention finds out for all of them where the keys are.
  const auto prepare = [&](int i) {
    look_ahead<T>(shared.ops[i], program, shared, bias);
    if (i + 1 == program.first_self || i + 1 == program.first_cross) {
      keep_keys(shared.ops[i + 1], program, shared);
      __syncthreads();
    }
    if (i + 1 < count) approach<T>(shared.ops[i + 1], program, shared);
  };
  for (int time = 0;; ++time) {
    look_at_rows(program, shared, time == 0);
    __syncthreads();
    if (in_vain(program, shared)) break;
    if (program.first_self == 0 || program.first_cross == 0) {
      keep_keys(shared.ops[0], program, shared);
      __syncthreads();
    }
    int i = 0;
    do {
      if (i > 0) arrive(met), meeting += gridDim.x;
      prepare(i);
      if (i > 0) meet(met, meeting);
      else wait_fetched(), __syncthreads();
      if (i > 0 && shared.ops[i - 1].late) write_late<T>(shared.ops[i - 1], shared);
      run<T>(shared.ops[i], program, shared, bias);
      __syncthreads();
    } while (++i < count);
    if (time + 1 >= program.times) break;
    arrive(met), meeting += gridDim.x;
    meet(met, meeting);
  }
  copy_out(program);
}

}  // namespace

template <class T>
bool prepare_few_rows(int device, int& blocks) {
  int cooperative = 0, shared = 0, processors = 0, resident = 0;
  cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (!cooperative || static_cast<std::size_t>(shared) < kFewSharedBytes) return false;
  if (cudaFuncSetAttribute(few_rows_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kFewSharedBytes)) != cudaSuccess) return false;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, few_rows_kernel<T>, kFewThreads, kFewSharedBytes);
  blocks = processors < kFewBlocks ? processors : kFewBlocks;
  return resident > 0;
}

template <class T>
void run_few_rows(const FewProgram& program, const FewDevice& device, cudaStream_t stream) {
  cudaLaunchAttribute together{};
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(device.blocks));
  config.blockDim = dim3(kFewThreads);
  config.dynamicSmemBytes = kFewSharedBytes;
  config.stream = stream;
  config.attrs = &together;
  config.numAttrs = 1;
  cudaLaunchKernelEx(&config, few_rows_kernel<T>, program, device.met);
}

#define INSTANTIATE(T)                                        \
  template bool prepare_few_rows<T>(int device, int& blocks); \
  template void run_few_rows<T>(const FewProgram&, const FewDevice&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
