// Applies the epilogue of a product where cuBLASLt does not, and gates feed-forward layers, in
// float32 whatever T is. A thread computes 16 bytes of a row, or one element where rows are not
// aligned.
#include "engine/cuda/device.cuh"
#include "engine/cuda/norms/vectors.cuh"
#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/products/products.h"

namespace xlate::cuda {
namespace {

constexpr int kMostThreads = 256;

// Loads and stores kSize elements, which are a vector of 16 bytes or a single one.
template <class T, int kSize>
__device__ void load(float (&values)[kSize], const T* from) {
  if constexpr (kSize > 1) {
    unpack_vector<T>(values, load_vector(from));
  } else {
    values[0] = to_float(*from);
  }
}
template <class T, int kSize>
__device__ void store(T* to, const float (&values)[kSize]) {
  if constexpr (kSize > 1) {
    *reinterpret_cast<uint4*>(to) = pack_vector<T>(values);
  } else {
    *to = from_float<T>(values[0]);
  }
}

// Returns the first column of this thread's elements. Its row is blockIdx.x.
template <int kSize>
__device__ std::int64_t first_column() {
  return (static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kSize;
}

template <class T, class B, int kSize>
__global__ void epilogue_kernel(EpilogueArgs<T, B> args) {
  const std::int64_t column = first_column<kSize>();
  if (column >= args.columns) return;
  T* out = args.out + blockIdx.x * args.out_stride + column;
  float y[kSize];
  load<T>(y, out);
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    if (args.bias) y[i] += to_float(args.bias[column + i]);
    y[i] = activate(y[i], args.activation);
  }
  store(out, y);
}

template <class T, int kSize>
__global__ void gate_kernel(GateArgs<T> args) {
  const std::int64_t column = first_column<kSize>();
  if (column >= args.columns) return;
  const T* x = args.x + blockIdx.x * args.x_stride + column;
  float gate[kSize], values[kSize];
  load<T>(gate, x);
  load<T>(values, x + args.columns);
#pragma unroll
  for (int i = 0; i < kSize; ++i) values[i] = activate(gate[i], args.activation) * values[i];
  store(args.out + blockIdx.x * args.out_stride + column, values);
}

// Launches a kernel with a thread for each kSize columns of each row. The blocks of a row have
// equally many warps.
template <int kSize, class Args>
void launch(void (*kernel)(Args), const Args& args, cudaStream_t stream) {
  const std::int64_t items = (args.columns + kSize - 1) / kSize;
  const unsigned blocks = blocks_for(items, kMostThreads),
                 threads = blocks_for(blocks_for(items, blocks), kWarp) * kWarp;
  kernel<<<dim3(static_cast<unsigned>(args.rows), blocks), threads, 0, stream>>>(args);
}

}  // namespace

template <class T>
void apply_gate(const GateArgs<T>& args, cudaStream_t stream) {
  constexpr int kVector = Vector16<T>::kSize;
  if (args.rows == 0) return;
  if (vector_aligned<T>(args.columns | args.x_stride | args.out_stride, {args.x, args.out}))
    launch<kVector>(gate_kernel<T, kVector>, args, stream);
  else
    launch<1>(gate_kernel<T, 1>, args, stream);
}

template void apply_gate<float>(const GateArgs<float>&, cudaStream_t);
template void apply_gate<__half>(const GateArgs<__half>&, cudaStream_t);
template void apply_gate<__nv_bfloat16>(const GateArgs<__nv_bfloat16>&, cudaStream_t);

template <class T, class B>
void apply_epilogue(const EpilogueArgs<T, B>& args, cudaStream_t stream) {
  constexpr int kVector = Vector16<T>::kSize;
  if (args.rows == 0) return;
  if (vector_aligned<T>(args.columns | args.out_stride, {args.out}))
    launch<kVector>(epilogue_kernel<T, B, kVector>, args, stream);
  else
    launch<1>(epilogue_kernel<T, B, 1>, args, stream);
}

template void apply_epilogue<float, float>(const EpilogueArgs<float, float>&, cudaStream_t);
template void apply_epilogue<float, __half>(const EpilogueArgs<float, __half>&, cudaStream_t);
template void apply_epilogue<float, __nv_bfloat16>(const EpilogueArgs<float, __nv_bfloat16>&,
                                                   cudaStream_t);
template void apply_epilogue<__half, __half>(const EpilogueArgs<__half, __half>&, cudaStream_t);
template void apply_epilogue<__nv_bfloat16, __nv_bfloat16>(
    const EpilogueArgs<__nv_bfloat16, __nv_bfloat16>&, cudaStream_t);

}  // namespace xlate::cuda
