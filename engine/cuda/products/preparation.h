// Preparation prepares the products that a run will need, on a thread of its own beside the other
// work. cuBLASLt loads its code at its first product (some 0.1 s), and it chooses an algorithm and
// loads its code at the algorithm's first use (2 to 3 ms). That is enough to leave a device idle at
// the beginning of a run and, where rows become few, at its end.
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
  /// Holds a product, and the numbers of rows for which its algorithms are to be chosen, largest
  /// first.
  struct Expected {
    Gemm::Product product;
    std::vector<std::int64_t> rows;
  };

  /// Starts the thread with the product `first`. Nobody else may use the memory of the products,
  /// and its contents do not matter.
  Preparation(Gemm&, int device, Expected first, Buffer memory);
  /// Waits for the product that is being prepared. The others are dropped.
  ~Preparation();
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;

  /// Adds products, which are prepared in descending order of their numbers of rows. `memory` is
  /// kept as long as the object.
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
  // They are in ascending order of rows. The last one is next.
  std::vector<Item> items_;
  // This is the largest number of rows among the items when add() was last called.
  std::int64_t most_rows_ = 0;
  std::vector<Buffer> memory_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace xlate::cuda
