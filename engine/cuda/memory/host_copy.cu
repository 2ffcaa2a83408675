// Copies small amounts of host memory to the device by kernels, which can read pinned memory.
#include <algorithm>

#include "engine/cuda/device.cuh"
#include "engine/cuda/memory/memory.h"

namespace xlate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 32;

template <class Word>
__global__ void copy_from_host_kernel(const Word* host, Word* device, std::int64_t count) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads)
    device[i] = host[i];
}

__global__ void update_table_kernel(const TableUpdate* changes, std::int64_t count,
                                    std::int32_t* table) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) table[changes[i].index] = changes[i].value;
}

template <class Word>
bool copy_words_from_host(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  if ((reinterpret_cast<std::uintptr_t>(host) | reinterpret_cast<std::uintptr_t>(device) | bytes) %
          sizeof(Word) !=
      0)
    return false;
  const auto count = static_cast<std::int64_t>(bytes / sizeof(Word));
  copy_from_host_kernel<<<std::min(blocks_for(count, kThreads), kMostBlocks), kThreads, 0,
                          stream>>>(static_cast<const Word*>(host), static_cast<Word*>(device),
                                    count);
  return true;
}

}  // namespace

bool copy_from_host(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  return bytes > 0 && (copy_words_from_host<uint4>(host, device, bytes, stream) ||
                       copy_words_from_host<std::uint32_t>(host, device, bytes, stream));
}

void update_table(const TableUpdate* changes, std::int64_t count, std::int32_t* table,
                  cudaStream_t stream) {
  if (count > 0)
    update_table_kernel<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(changes, count,
                                                                              table);
}

}  // namespace xlate::cuda
