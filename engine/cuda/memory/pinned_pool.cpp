// Implements the pool of pinned memory. Blocks are powers of two of at least 4096 bytes, so that a
// block serves many requests.
#include "engine/cuda/memory/pinned_pool.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace xlate::cuda {

PinnedPool::~PinnedPool() {
  for (const auto& block : free_) cudaFreeHost(block->data);
}

std::unique_ptr<PinnedPool::Block> PinnedPool::take(std::size_t bytes) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(bytes, 4096));
  for (auto& candidate : free_) {
    if (candidate->bytes != size || !candidate->event.passed()) continue;
    std::swap(candidate, free_.back());
    auto block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  auto block = std::make_unique<Block>();
  void* data = nullptr;
  check(cudaMallocHost(&data, size));
  block->data = static_cast<char*>(data);
  block->bytes = size;
  return block;
}

void PinnedPool::give_back(std::unique_ptr<Block> block) { free_.push_back(std::move(block)); }

}  // namespace xlate::cuda
