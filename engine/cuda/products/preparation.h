// Products that a run will need, got ready by a thread of their own beside its other work. cuBLASLt
// loads its code at its first product (some 0.1 s), and an algorithm is chosen and its code loaded
// at its first use (2 to 3 ms): enough for a device to idle at a run's beginning and, where rows
// become few, at its end.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/cuda/products/gemm.h"

namespace xlate::cuda {

class Preparation {
 public:
  /// A product, and the row counts for which its algorithms are to be chosen, largest first.
  struct Expected {
    Gemm::Product product;
    std::vector<std::int64_t> rows;
  };

  /// Begins with `first`. The memory of products is nobody else's: what is in it does not matter.
  Preparation(Gemm&, int device, Expected first, Buffer memory);
  /// Waits for the product at hand; the others are left.
  ~Preparation();
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;

  /// Largest row counts first. `memory` is kept as long as the object.
  void add(std::vector<Expected>, Buffer memory);

 private:
  struct Item {
    Gemm::Product product;
    std::int64_t rows;
  };
  void work(int device);

  Gemm& gemm_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;     // the next one last
  std::int64_t most_rows_ = 0;  // of them
  std::vector<Buffer> memory_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace xlate::cuda
