// Applies the epilogue of a product where cuBLASLt does not, and gates feed-forward layers. Each
// thread computes one element, in float32 whatever T is.
#include "engine/cuda/device.cuh"
#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/products/products.h"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;

template <class T, class B>
__global__ void epilogue_kernel(EpilogueArgs<T, B> args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.columns) return;
  float y = to_float(args.out[row * args.out_stride + column]);
  if (args.bias) y += to_float(args.bias[column]);
  args.out[row * args.out_stride + column] = from_float<T>(activate(y, args.activation));
}

template <class T>
__global__ void gate_kernel(GateArgs<T> args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.columns) return;
  const T* x = args.x + row * args.x_stride + column;
  args.out[row * args.out_stride + column] =
      from_float<T>(activate(to_float(x[0]), args.activation) * to_float(x[args.columns]));
}

}  // namespace

template <class T>
void apply_gate(const GateArgs<T>& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.rows), blocks_for(args.columns, kBlock));
  if (args.rows > 0) gate_kernel<<<grid, kBlock, 0, stream>>>(args);
}

template void apply_gate<float>(const GateArgs<float>&, cudaStream_t);
template void apply_gate<__half>(const GateArgs<__half>&, cudaStream_t);
template void apply_gate<__nv_bfloat16>(const GateArgs<__nv_bfloat16>&, cudaStream_t);

template <class T, class B>
void apply_epilogue(const EpilogueArgs<T, B>& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.rows), blocks_for(args.columns, kBlock));
  if (args.rows > 0) epilogue_kernel<<<grid, kBlock, 0, stream>>>(args);
}

template void apply_epilogue<float, float>(const EpilogueArgs<float, float>&, cudaStream_t);
template void apply_epilogue<float, __half>(const EpilogueArgs<float, __half>&, cudaStream_t);
template void apply_epilogue<float, __nv_bfloat16>(const EpilogueArgs<float, __nv_bfloat16>&,
                                                   cudaStream_t);
template void apply_epilogue<__half, __half>(const EpilogueArgs<__half, __half>&, cudaStream_t);
template void apply_epilogue<__nv_bfloat16, __nv_bfloat16>(
    const EpilogueArgs<__nv_bfloat16, __nv_bfloat16>&, cudaStream_t);

}  // namespace xlate::cuda
