// Implements the thread that prepares products.
#include "engine/cuda/products/preparation.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>
#include <utility>

#include "engine/cuda/handles.h"

namespace xlate::cuda {
namespace {

constexpr std::chrono::milliseconds kPause{5};

}  // namespace

Preparation::Preparation(Gemm& gemm, int device, Expected first, Buffer memory) : gemm_(gemm) {
  std::vector<Expected> list;
  list.push_back(std::move(first));
  add(std::move(list), std::move(memory));
  try {
    thread_ = std::thread([this, device] { work(device); });
  } catch (const std::system_error&) {
    // The system has no thread for this. Each product is then prepared when it is first needed.
  }
}

Preparation::~Preparation() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Preparation::add(std::vector<Expected> expected, Buffer memory) {
  std::lock_guard lock(mutex_);
  memory_.push_back(std::move(memory));
  for (const Expected& entry : expected) {
    for (const std::int64_t rows : entry.rows) items_.push_back({entry.product, rows});
  }
  std::stable_sort(items_.begin(), items_.end(),
                   [](const Item& a, const Item& b) { return a.rows < b.rows; });
  if (!items_.empty()) most_rows_ = items_.back().rows;
  changed_.notify_one();
}

void Preparation::work(int device) {
  try {
    check(cudaSetDevice(device));
    const Stream stream;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ended_ || !items_.empty(); });
      if (ended_) break;
      const Item item = items_.back();
      items_.pop_back();
      lock.unlock();
      gemm_.prepare(item.product, item.rows, stream.get());
      lock.lock();
      // Loading code holds locks of the driver, for which launches wait. The products with the most
      // rows are needed at once and are prepared without a pause. Before the others a pause lets
      // launches through.
      if (item.rows < most_rows_) changed_.wait_for(lock, kPause, [&] { return ended_; });
    }
    cudaStreamSynchronize(stream.get());
  } catch (const std::exception&) {
    // The caller that needs the product will meet the error itself.
  }
}

}  // namespace xlate::cuda
