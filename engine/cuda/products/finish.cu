// What follows a product where cuBLASLt does not do it: a thread per element, in float32 whatever T
// is.
#include "engine/cuda/device.cuh"
#include "engine/cuda/products/activation.cuh"
#include "engine/cuda/products/products.h"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;

template <class T, class B>
__global__ void finish_kernel(FinishArgs<T, B> args) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (column >= args.columns) return;
  float y = to_float(args.out[row * args.out_stride + column]);
  if (args.bias) y += to_float(args.bias[column]);
  args.out[row * args.out_stride + column] = from_float<T>(activate(y, args.activation));
}

}  // namespace

template <class T, class B>
void finish_rows(const FinishArgs<T, B>& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.rows), blocks_for(args.columns, kBlock));
  if (args.rows > 0) finish_kernel<<<grid, kBlock, 0, stream>>>(args);
}

template void finish_rows<float, float>(const FinishArgs<float, float>&, cudaStream_t);
template void finish_rows<float, __half>(const FinishArgs<float, __half>&, cudaStream_t);
template void finish_rows<float, __nv_bfloat16>(const FinishArgs<float, __nv_bfloat16>&,
                                                cudaStream_t);
template void finish_rows<__half, __half>(const FinishArgs<__half, __half>&, cudaStream_t);
template void finish_rows<__nv_bfloat16, __nv_bfloat16>(
    const FinishArgs<__nv_bfloat16, __nv_bfloat16>&, cudaStream_t);

}  // namespace xlate::cuda
