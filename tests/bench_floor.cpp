// Measures the lower bound of start-up time. The program creates a CUDA context, opens cuBLASLt at
// run time as xlate does, computes one product and exits. No program that computes with cuBLASLt
// can start faster, so the start-up time of xlate is compared with the time of this program from
// start to exit.
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

// The product has the shape of a decoding step of one sentence with 4 beams.
constexpr std::uint64_t kRows = 4, kWidth = 512;

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "bench_floor: %s failed\n", what);
  std::exit(1);
}

template <class Function>
Function* find(void* library, const char* name) {
  void* function = dlsym(library, name);
  require(function != nullptr, name);
  return reinterpret_cast<Function*>(function);
}
#define FIND(name) const auto name##_ = find<decltype(name)>(library, #name)
#define CHECK(call) require(static_cast<int>(call) == 0, #call)

void* open_library() {
  void* library = dlopen("libcublasLt.so." XLATE_CUBLASLT_MAJOR, RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen("libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
  require(library != nullptr, "opening libcublasLt.so." XLATE_CUBLASLT_MAJOR);
  return library;
}

}  // namespace

int main() {
  CHECK(cudaSetDevice(0));
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, kWidth * kWidth * 2));

  void* library = open_library();
  FIND(cublasLtCreate);
  FIND(cublasLtMatmulDescCreate);
  FIND(cublasLtMatmulDescSetAttribute);
  FIND(cublasLtMatrixLayoutCreate);
  FIND(cublasLtMatmulPreferenceCreate);
  FIND(cublasLtMatmulAlgoGetHeuristic);
  FIND(cublasLtMatmul);
  cublasLtHandle_t handle = nullptr;
  CHECK(cublasLtCreate_(&handle));
  cublasLtMatmulDesc_t operation = nullptr;
  CHECK(cublasLtMatmulDescCreate_(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  CHECK(cublasLtMatmulDescSetAttribute_(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                        sizeof(transposed)));
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr;
  CHECK(cublasLtMatrixLayoutCreate_(&weight, CUDA_R_16F, kWidth, kWidth, kWidth));
  CHECK(cublasLtMatrixLayoutCreate_(&x, CUDA_R_16F, kWidth, kRows, kWidth));
  cublasLtMatmulPreference_t preference = nullptr;
  CHECK(cublasLtMatmulPreferenceCreate_(&preference));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  CHECK(cublasLtMatmulAlgoGetHeuristic_(handle, operation, weight, x, x, x, preference, 1, &found,
                                        &count));
  require(count == 1, "choosing an algorithm");
  const float one = 1, zero = 0;
  // The values make no difference, so one buffer serves for all three matrices.
  CHECK(cublasLtMatmul_(handle, operation, &one, memory, weight, memory, x, &zero, memory, x,
                        memory, x, &found.algo, nullptr, 0, stream));
  CHECK(cudaStreamSynchronize(stream));
  return 0;
}
