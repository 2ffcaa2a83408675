// Converts floats to another type, one element per thread.
#include "engine/cuda/device.cuh"
#include "engine/cuda/memory/memory.h"

namespace xlate::cuda {
namespace {

constexpr int kBlock = 256;

template <class T>
__global__ void convert_kernel(const float* in, T* out, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from_float<T>(in[i]);
}

}  // namespace

template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t stream) {
  if (count > 0) convert_kernel<<<blocks_for(count, kBlock), kBlock, 0, stream>>>(in, out, count);
}

template void convert<float>(const float*, float*, std::int64_t, cudaStream_t);
template void convert<__half>(const float*, __half*, std::int64_t, cudaStream_t);
template void convert<__nv_bfloat16>(const float*, __nv_bfloat16*, std::int64_t, cudaStream_t);

}  // namespace xlate::cuda
