// How long the device works: pairs of events around pieces of work, read once they have passed.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <vector>

#include "engine/backend.h"

namespace xlate::cuda {

class WorkClock {
 public:
  WorkClock();
  ~WorkClock();
  WorkClock(const WorkClock&) = delete;
  WorkClock& operator=(const WorkClock&) = delete;

  void begin(cudaStream_t, Work);
  void end(cudaStream_t, Work);
  /// Waits for all work marked so far.
  WorkSeconds read();

 private:
  struct Interval {
    cudaEvent_t begin = nullptr, end = nullptr;
    Work work = Work::kDecode;
    bool ended = false;
  };
  cudaEvent_t take();
  void settle(bool wait);

  cudaEvent_t origin_ = nullptr;
  std::vector<cudaEvent_t> free_;
  std::deque<Interval> open_;  // in the order in which they began
  WorkSeconds seconds_{.busy = 0};
  double first_ = -1, until_ = 0;  // the union so far, in seconds from the origin
};

}  // namespace xlate::cuda
