// The factory: the one place that knows which backends this build has.
#include "engine/backend.h"

#include "engine/cpu/cpu_backend.h"
#ifdef XLATE_CUDA
#include "engine/cuda/cuda_backend.h"
#endif
#include "engine/error.h"

namespace xlate {

#ifdef XLATE_CUDA
bool has_cuda() { return true; }
#else
bool has_cuda() { return false; }
#endif

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  if (!options.cuda) return std::make_unique<cpu::CpuBackend>(options);
#ifdef XLATE_CUDA
  return std::make_unique<cuda::CudaBackend>(options);
#else
  fail("this build has no CUDA backend (it was configured where there was no CUDA toolkit)");
#endif
}

}  // namespace xlate
