// Host memory that the device reads and writes, and what is waited for there.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/handles.h"

namespace xlate::cuda {

/// Host memory that copies run from and to; taken back once the event recorded behind its last use
/// has passed.
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

  /// A block of at least so many bytes.
  std::unique_ptr<Block> take(std::size_t bytes);
  /// Its event has been recorded; it is lent again once that has passed.
  void give_back(std::unique_ptr<Block>);

 private:
  std::vector<std::unique_ptr<Block>> free_;
};

/// What a copy to a block brings.
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
