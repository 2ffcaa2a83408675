// Defines pinned host memory, which the device reads and writes, and the reads that wait for what
// it writes there.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/handles.h"

namespace xlate::cuda {

/// Lends blocks of pinned host memory, which copies read and write. A block is lent again once the
/// event that was recorded after its last use has passed.
class PinnedPool {
 public:
  struct Block {
    char* data = nullptr;
    std::size_t bytes = 0;
    Event event;
  };
  PinnedPool() = default;
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;
  ~PinnedPool();

  /// Returns a block of at least this many bytes.
  std::unique_ptr<Block> take(std::size_t bytes);
  /// Takes a block back. Its event must have been recorded. The block is lent again once the event
  /// has passed.
  void give_back(std::unique_ptr<Block>);

 private:
  std::vector<std::unique_ptr<Block>> free_;
};

/// Reads what a copy has written to a block.
class CudaPendingRead final : public PendingRead {
 public:
  CudaPendingRead(PinnedPool& pool, std::unique_ptr<PinnedPool::Block> block, std::size_t bytes)
      : pool_(pool), block_(std::move(block)), bytes_(bytes) {}
  ~CudaPendingRead() override { pool_.give_back(std::move(block_)); }
  bool ready() const override { return block_->event.passed(); }
  std::span<const std::byte> wait() override {
    check(cudaEventSynchronize(block_->event.get()));
    return {reinterpret_cast<const std::byte*>(block_->data), bytes_};
  }

 private:
  PinnedPool& pool_;
  std::unique_ptr<PinnedPool::Block> block_;
  std::size_t bytes_;
};

}  // namespace xlate::cuda
