// Norms and rotates the heads of queries and keys in place. A block processes a row, and a warp of
// it a head at a time. The angles of a row are the same for all heads, so the block computes their
// sines and cosines once.
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/norms/norm.cuh"

namespace xlate::cuda {
namespace {

constexpr int kWarps = 4;
// Heads have at most 256 columns.
constexpr int kMostPairs = 128;

// Returns the positions of packed rows.
struct PackedPositions {
  const std::int32_t* positions;
  __device__ int of(std::int64_t row) const { return positions[row]; }
};

// Returns the positions of the rows of a decoding step. They are negative for empty groups and for
// slots that are done.
struct StepPositions {
  const std::int32_t *slots, *lengths, *done, *before;
  std::int64_t beams;
  __device__ int of(std::int64_t row) const {
    const std::int32_t slot = slots[row / beams];
    if (slot < 0 || done[slot]) return -1;
    return lengths[slot] + (before ? before[slot] : 0);
  }
};

// Norms and rotates one head. `turns` has the cosine and the sine of each pair. A lane reads and
// writes both columns of a pair, so that lanes do not wait for each other.
template <class T>
__device__ void transform_head(T* x, int width, const float* gain, const float* shift,
                               const HeadArgs<T>& args, const float2* turns) {
  const int lane = threadIdx.x % kWarp;
  float2 moment[1] = {{0.0f, 1.0f}};
  if (gain) {
    moments(
        moment, width, args.epsilon,
        [&](const auto& add) {
          for (int i = lane; i < width; i += kWarp) add(0, to_float(x[i]));
        },
        args.rms);
  }
  const auto normed = [&](int i) {
    const float value = to_float(x[i]);
    if (!gain) return value;
    return fmaf((value - moment[0].x) * moment[0].y, gain[i], shift ? shift[i] : 0.0f);
  };
  for (int j = lane; j < args.pairs; j += kWarp) {
    const float first = normed(j), second = normed(args.pairs + j);
    const float2 turn = turns[j];
    x[j] = from_float<T>(first * turn.x - second * turn.y);
    x[args.pairs + j] = from_float<T>(second * turn.x + first * turn.y);
  }
  if (!gain) return;
  for (int i = 2 * args.pairs + lane; i < width; i += kWarp) x[i] = from_float<T>(normed(i));
}

template <class T, class Positions>
__global__ void __launch_bounds__(kWarps* kWarp)
    transform_kernel(HeadArgs<T> args, Positions positions) {
  __shared__ float2 turns[kMostPairs];
  const int position = positions.of(blockIdx.x);
  if (position < 0) return;
  // The angle is rounded to float32 once, as on the CPU.
  for (int j = threadIdx.x; j < args.pairs; j += kWarps * kWarp)
    sincosf(static_cast<float>(position) * args.rates[j], &turns[j].y, &turns[j].x);
  __syncthreads();
  T* row = args.queries_keys + blockIdx.x * args.stride;
  for (int head = threadIdx.x / kWarp; head < args.heads + args.key_heads; head += kWarps) {
    const bool query = head < args.heads;
    transform_head(row + static_cast<std::int64_t>(head) * args.head, args.head,
                   query ? args.query_gain : args.key_gain,
                   query ? args.query_shift : args.key_shift, args, turns);
  }
}

template <class T, class Positions>
void launch(const HeadArgs<T>& args, const Positions& positions, cudaStream_t stream) {
  if (args.rows > 0)
    transform_kernel<<<static_cast<unsigned>(args.rows), kWarps * kWarp, 0, stream>>>(args,
                                                                                      positions);
}

}  // namespace

template <class T>
void transform_heads(const HeadArgs<T>& args, const std::int32_t* positions, cudaStream_t stream) {
  launch(args, PackedPositions{positions}, stream);
}

template <class T>
void transform_heads(const HeadArgs<T>& args, const SearchState& state, const StepRows& rows,
                     const std::int32_t* before, cudaStream_t stream) {
  launch(args, StepPositions{rows.slots, state.length, state.done, before, rows.beams}, stream);
}

#define INSTANTIATE(T)                                                                      \
  template void transform_heads<T>(const HeadArgs<T>&, const std::int32_t*, cudaStream_t);  \
  template void transform_heads<T>(const HeadArgs<T>&, const SearchState&, const StepRows&, \
                                   const std::int32_t*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
