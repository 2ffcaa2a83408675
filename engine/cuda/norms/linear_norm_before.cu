// Compiles the kernels of linear_norm.cuh for pre-norm networks. They are apart from those of
// linear_norm.cu only so that the two compile at the same time.
#include "engine/cuda/norms/linear_norm.cuh"

namespace xlate::cuda {

template <class T>
void linear_norm_before(const LinearNormArgs<T>& args, cudaStream_t stream) {
  launch_tile<T, true>(args, stream);
}

template void linear_norm_before<__half>(const LinearNormArgs<__half>&, cudaStream_t);
template void linear_norm_before<__nv_bfloat16>(const LinearNormArgs<__nv_bfloat16>&, cudaStream_t);

}  // namespace xlate::cuda
