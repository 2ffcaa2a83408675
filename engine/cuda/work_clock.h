// WorkClock measures how long the device works. It records a pair of events around each part of the
// work and reads their times once they have passed.
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
  /// Waits for all work that has been marked, and returns its times.
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
  // They are in the order in which they began.
  std::deque<Interval> open_;
  WorkSeconds seconds_{.busy = 0};
  // These are the beginning of the first interval and the end of the union so far, in seconds from
  // the origin. The beginning is negative if there is none.
  double first_ = -1, until_ = 0;
};

}  // namespace xlate::cuda
