// Small pieces of host memory, fetched by kernels: pinned memory is the device's to read.
#include <algorithm>

#include "engine/cuda/device.cuh"
#include "engine/cuda/memory/memory.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 32;

template <class Word>
__global__ void fetch_kernel(const Word* host, Word* device, std::int64_t count) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads)
    device[i] = host[i];
}

__global__ void change_kernel(const Change* changes, std::int64_t count, std::int32_t* table) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) table[changes[i].place] = changes[i].value;
}

template <class Word>
bool fetch_words(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  if ((reinterpret_cast<std::uintptr_t>(host) | reinterpret_cast<std::uintptr_t>(device) | bytes) %
          sizeof(Word) !=
      0)
    return false;
  const auto count = static_cast<std::int64_t>(bytes / sizeof(Word));
  fetch_kernel<<<std::min(blocks_for(count, kThreads), kMostBlocks), kThreads, 0, stream>>>(
      static_cast<const Word*>(host), static_cast<Word*>(device), count);
  return true;
}

}  // namespace

bool fetch(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  return bytes > 0 && (fetch_words<uint4>(host, device, bytes, stream) ||
                       fetch_words<std::uint32_t>(host, device, bytes, stream));
}

void change(const Change* changes, std::int64_t count, std::int32_t* table, cudaStream_t stream) {
  if (count > 0)
    change_kernel<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(changes, count, table);
}

}  // namespace xlate::cuda
