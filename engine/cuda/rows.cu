// Row-wise kernels: embedding, layer norm, what follows a product, conversion. A warp per row for the norm, a thread per element
// elsewhere; arithmetic in float32 whatever T is.
#include "engine/cuda/device.cuh"
#include "engine/cuda/kernels.h"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;

__device__ float activate(float x, Act activation) {
  switch (activation) {
    case Act::kNone: return x;
    case Act::kRelu: return fmaxf(x, 0.0f);
    case Act::kSwish: return x / (1.0f + __expf(-x));
    case Act::kGelu: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case Act::kGeluTanh: return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

template <class T>
__device__ void embed_row(const EmbedArgs<T>& args, std::int64_t row, std::int32_t id, std::int32_t place) {
  const T* table = args.table + id * args.table_stride;
  const float* position = args.positions + place * args.positions_stride;
  for (std::int64_t i = threadIdx.x; i < args.width; i += blockDim.x) {
    args.out[row * args.out_stride + i] = from_float<T>(to_float(table[i]) * args.scale + position[i]);
  }
}

template <class T>
__global__ void embed_kernel(EmbedArgs<T> args) {
  embed_row(args, blockIdx.x, args.ids[blockIdx.x], args.places[blockIdx.x]);
}

template <class T>
__global__ void embed_step_kernel(EmbedArgs<T> args, SearchState state, StepRows rows) {
  const std::int64_t row = blockIdx.x, slot = rows.slots[row / rows.beams];
  if (slot < 0 || state.done[slot]) return;
  embed_row(args, row, state.token[slot * rows.beams + row % rows.beams], state.length[slot]);
}

template <class T>
__global__ void norm_kernel(NormArgs<T> args) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= args.rows) return;
  const T* x = args.x + row * args.x_stride;
  T* out = args.out + row * args.out_stride;
  float sum = 0;
  for (std::int64_t i = lane; i < args.width; i += kWarp) sum += to_float(x[i]);
  const float mean = warp_sum(sum) / static_cast<float>(args.width);
  float squares = 0;
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    const float d = to_float(x[i]) - mean;
    squares += d * d;
  }
  const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(args.width) + args.epsilon);
  for (std::int64_t i = lane; i < args.width; i += kWarp) {
    out[i] = from_float<T>((to_float(x[i]) - mean) * inverse * args.gain[i] + args.bias[i]);
  }
}

template <class T>
__global__ void finish_kernel(FinishArgs<T> args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.columns) return;
  float y = activate(to_float(args.out[row * args.out_stride + column]), args.activation);
  if (args.residual) y += to_float(args.residual[row * args.residual_stride + column]);
  args.out[row * args.out_stride + column] = from_float<T>(y);
}

template <class T>
__global__ void convert_kernel(const float* in, T* out, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from_float<T>(in[i]);
}

unsigned blocks(std::int64_t items, std::int64_t each) { return static_cast<unsigned>((items + each - 1) / each); }

}  // namespace

template <class T>
void embed(const EmbedArgs<T>& args, cudaStream_t stream) {
  if (args.rows > 0) embed_kernel<<<static_cast<unsigned>(args.rows), 128, 0, stream>>>(args);
}

template <class T>
void embed_step(const EmbedArgs<T>& args, const SearchState& state, const StepRows& rows, cudaStream_t stream) {
  embed_step_kernel<<<static_cast<unsigned>(rows.rows()), 128, 0, stream>>>(args, state, rows);
}

template <class T>
void layer_norm(const NormArgs<T>& args, cudaStream_t stream) {
  if (args.rows > 0) norm_kernel<<<blocks(args.rows, kBlock / kWarp), kBlock, 0, stream>>>(args);
}

template <class T>
void finish_rows(const FinishArgs<T>& args, cudaStream_t stream) {
  if (args.rows > 0) finish_kernel<<<dim3(static_cast<unsigned>(args.rows), blocks(args.columns, kBlock)), kBlock, 0, stream>>>(args);
}

template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t stream) {
  if (count > 0) convert_kernel<<<blocks(count, kBlock), kBlock, 0, stream>>>(in, out, count);
}

#define INSTANTIATE(T)                                                                       \
  template void embed<T>(const EmbedArgs<T>&, cudaStream_t);                                 \
  template void embed_step<T>(const EmbedArgs<T>&, const SearchState&, const StepRows&, cudaStream_t); \
  template void layer_norm<T>(const NormArgs<T>&, cudaStream_t);                             \
  template void finish_rows<T>(const FinishArgs<T>&, cudaStream_t);                          \
  template void convert<T>(const float*, T*, std::int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

}  // namespace xlate::cuda
