// Times the fused vocabulary kernel and, for comparison, the bare product of the same shape by
// cuBLASLt, on random data. It prints a line for each number of rows R.
//   bench_vocabulary [V [D [R]]]
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>

#include "engine/cuda/handles.h"
#include "engine/cuda/products/gemm.h"
#include "engine/cuda/products/tensor_map.h"
#include "engine/cuda/vocabulary/vocabulary.h"

namespace xlate {
namespace {

using cuda::check;

void* device_memory(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  check(cudaMemset(data, 0, bytes));
  return data;
}

/// Returns random numbers that are nearly normally distributed. Each is the sum of three uniform
/// numbers in [−spread, spread).
Tensor random_tensor(std::int64_t rows, std::int64_t columns, float spread) {
  static std::minstd_rand random(1);
  std::vector<__half> values(static_cast<std::size_t>(rows * columns));
  for (__half& value : values) {
    float sum = 0;
    for (int i = 0; i < 3; ++i) sum += static_cast<float>(random() % 65536) / 32768 - 1;
    value = __float2half_rn(sum * spread);
  }
  void* data = device_memory(values.size() * 2);
  check(cudaMemcpy(data, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  return {data, DType::kFloat16, rows, columns, columns};
}

/// Returns the microseconds of one call. It records the calls in a CUDA graph and takes the median
/// of several replays.
double time_of(cudaStream_t stream, int calls, const std::function<void()>& call) {
  call();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) call();
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&ready, graph));
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 9; ++i) {
    check(cudaEventRecord(begin, stream));
    check(cudaGraphLaunch(ready, stream));
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i > 1) times.push_back(milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return 1000.0 * times[times.size() / 2] / calls;
}

void bench(std::int64_t vocabulary, std::int64_t width, std::int64_t only) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  constexpr std::int64_t kMostRows = 16384;
  const std::int64_t padded = (vocabulary + 127) / 128 * 128;
  const Tensor hidden = random_tensor(kMostRows, width, 1),
               weight = random_tensor(padded, width, 0.08f);
  std::vector<float> biases(static_cast<std::size_t>(vocabulary));
  for (std::size_t i = 0; i < biases.size(); ++i) biases[i] = static_cast<float>(i % 7) * 0.1f;
  auto* bias = static_cast<float*>(device_memory(biases.size() * 4));
  check(cudaMemcpy(bias, biases.data(), biases.size() * 4, cudaMemcpyHostToDevice));
  void* scratch = device_memory(cuda::vocabulary_scratch_bytes(kMostRows, vocabulary, 8));
  void* logits = device_memory(static_cast<std::size_t>(kMostRows * padded) * 4);
  auto* values = static_cast<float*>(device_memory(kMostRows * 8 * 4));
  auto* tokens = static_cast<std::int32_t*>(device_memory(kMostRows * 8 * 4));
  auto* never = static_cast<std::int32_t*>(device_memory(4));
  cuda::RulesView rules{};
  rules.never_chosen = never, rules.never_chosen_count = 1;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cuda::Gemm gemm;
  std::printf("%s, V %lld, D %lld, float16; us (TFLOP/s)\n%6s %18s %18s %18s %18s\n",
              properties.name, static_cast<long long>(vocabulary), static_cast<long long>(width),
              "rows", "product to fp32", "product to fp16", "count 1", "count 8");
  for (const std::int64_t rows : {4, 64, 128, 256, 1024, 2048, 4096, 4608, 8192, 16384}) {
    if (only > 0 && rows != only) continue;
    const Tensor x = hidden.row_range(0, rows);
    const int calls = rows < 1024 ? 50 : 10;
    std::printf("%6lld", static_cast<long long>(rows));
    const auto print = [&](double us) {
      std::printf("  %8.1f (%5.0f)", us,
                  2e-6 * static_cast<double>(rows * vocabulary * width) / us);
      std::fflush(stdout);
    };
    for (const DType type : {DType::kFloat32, DType::kFloat16}) {
      print(time_of(stream, calls, [&] {
        gemm.run({.x = x,
                  .weight = weight,
                  .bias = nullptr,
                  .out = {logits, type, rows, padded, padded}},
                 stream);
      }));
    }
    for (const int count : {1, 8}) {
      print(time_of(stream, calls, [&] {
        const cuda::VocabularyArgs args{.hidden = cuda::tensor_map(x),
                                        .weight = cuda::tensor_map(weight.row_range(0, vocabulary)),
                                        .bias = bias,
                                        .rows = rows,
                                        .width = width,
                                        .vocabulary = vocabulary,
                                        .scratch = scratch};
        cuda::project_rows<__half>(args, rules, {values, tokens, count}, stream);
        check(cudaGetLastError());
      }));
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace xlate

int main(int argc, char** argv) {
  try {
    xlate::bench(argc > 1 ? std::atoll(argv[1]) : 32001, argc > 2 ? std::atoll(argv[2]) : 512,
                 argc > 3 ? std::atoll(argv[3]) : 0);
  } catch (const xlate::Error& error) {
    std::fprintf(stderr, "bench_vocabulary: %s\n", error.what());
    return 1;
  }
}
