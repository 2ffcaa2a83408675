// Implements the clock of the device's work by CUDA events.
#include "engine/cuda/work_clock.h"

#include <algorithm>

#include "engine/cuda/handles.h"

namespace xlate::cuda {
namespace {

double seconds_between(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, from, to));
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace

WorkClock::WorkClock() {
  origin_ = take();
  check(cudaEventRecord(origin_));
  check(cudaEventSynchronize(origin_));
}

WorkClock::~WorkClock() {
  for (const Interval& interval : open_) free_.insert(free_.end(), {interval.begin, interval.end});
  for (const cudaEvent_t event : free_) {
    if (event) cudaEventDestroy(event);
  }
  cudaEventDestroy(origin_);
}

cudaEvent_t WorkClock::take() {
  cudaEvent_t event = nullptr;
  if (free_.empty()) {
    check(cudaEventCreate(&event));
  } else {
    event = free_.back();
    free_.pop_back();
  }
  return event;
}

void WorkClock::begin(cudaStream_t stream, Work work) {
  // Work that has no end was given up because of an error.
  for (const Interval& interval : open_) {
    if (interval.work == work && !interval.ended)
      free_.insert(free_.end(), {interval.begin, interval.end});
  }
  std::erase_if(open_,
                [&](const Interval& interval) { return interval.work == work && !interval.ended; });
  settle(false);
  open_.push_back({.begin = take(), .end = take(), .work = work});
  check(cudaEventRecord(open_.back().begin, stream));
}

void WorkClock::end(cudaStream_t stream, Work work) {
  const auto found = std::find_if(open_.rbegin(), open_.rend(), [&](const Interval& interval) {
    return interval.work == work && !interval.ended;
  });
  check(cudaEventRecord(found->end, stream));
  found->ended = true;
}

// Adds the intervals that have passed to the sums. Intervals of two queues begin nearly in order,
// so that an interval adds to the union only what lies after the last end.
void WorkClock::settle(bool wait) {
  for (; !open_.empty() && open_.front().ended; open_.pop_front()) {
    const Interval& interval = open_.front();
    if (wait) check(cudaEventSynchronize(interval.end));
    const cudaError_t status = cudaEventQuery(interval.end);
    if (status == cudaErrorNotReady) return;
    check(status);
    const double begin = seconds_between(origin_, interval.begin),
                 end = seconds_between(origin_, interval.end);
    (interval.work == Work::kEncode ? seconds_.encode : seconds_.decode) += end - begin;
    seconds_.busy += std::max(0.0, end - std::max(begin, until_));
    if (first_ < 0) first_ = begin;
    until_ = std::max(until_, end);
    seconds_.span = until_ - first_;
    free_.insert(free_.end(), {interval.begin, interval.end});
  }
}

WorkSeconds WorkClock::read() {
  settle(true);
  return seconds_;
}

}  // namespace xlate::cuda
