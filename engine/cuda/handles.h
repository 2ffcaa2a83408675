// Defines the owners of CUDA's handles, and the check that turns a failed call into an Error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <source_location>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/error.h"

namespace xlate::cuda {

struct CompiledStep;

/// Throws Error, with the place of the call, if a call of CUDA has failed.
inline void check(cudaError_t status,
                  std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  // An error that is not of a kernel is forgotten, so that the next call does not report it again.
  cudaGetLastError();
  std::string_view file = where.file_name();
  file.remove_prefix(file.rfind('/') + 1);
  const std::string message = fmt::format("CUDA: {} ({}), at {}:{}", cudaGetErrorString(status),
                                          cudaGetErrorName(status), file, where.line());
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(message);
  throw Error(message);
}

/// Holds a decoding step that CudaBackend::repeat replays: a compiled step of the solo kernel, or a
/// CUDA graph. The graph is null until the step's number of groups has come a few times.
struct Recorded {
  std::shared_ptr<CompiledStep> solo;
  cudaGraphExec_t graph = nullptr;
  // Counts the runs that were not recorded. The first one creates this object.
  int unrecorded = 1;
  Recorded() = default;
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;
  ~Recorded() {
    if (graph) cudaGraphExecDestroy(graph);
  }
};

class Stream final : public Queue {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() override {
    if (at_end_) at_end_();
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  /// Sets what is called before the stream is destroyed.
  void at_end(std::function<void()> forget) { at_end_ = std::move(forget); }
  /// Returns the recorded steps by their number of groups. They end with the queue, and so with the
  /// run whose addresses they hold.
  std::map<std::int64_t, std::unique_ptr<Recorded>>& recorded() { return recorded_; }

 private:
  cudaStream_t stream_ = nullptr;
  std::function<void()> at_end_;
  std::map<std::int64_t, std::unique_ptr<Recorded>> recorded_;
};

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() {
    if (event_) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  cudaEvent_t get() const { return event_; }
  /// Returns whether all work before the last record of the event has ended.
  bool passed() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check(status);
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace xlate::cuda
