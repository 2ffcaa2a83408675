// Implements CudaBackend::repeat: for which numbers of groups steps are recorded, and how they are
// recorded and replayed.
#include <algorithm>
#include <bit>

#include "engine/cuda/cuda_backend.h"

namespace xlate::cuda {
namespace {

constexpr std::int64_t kManyGroups = 256;
// After the very first step of a number of groups, this many more are run without a recording. A
// recording takes as long as a step or two, which is not worth it for a number that does not come
// again soon.
constexpr int kUnrecorded = 3;

}  // namespace

// Rounds up to few different numbers. From 5 groups on the rounding adds fewer than 4 groups or
// less than an eighth. From kManyGroups on, where a step takes longer than its launches, it adds
// less than a 32nd.
std::int64_t CudaBackend::padded_groups(std::int64_t groups) const {
  if (groups <= 4) return groups;
  const std::int64_t share = groups < kManyGroups ? 8 : 32;
  const std::int64_t step = std::max<std::int64_t>(
      4, static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(groups))) / share);
  return (groups + step - 1) / step * step;
}

// The first steps of a number of groups are run without a recording. The very first of them chooses
// algorithms for the products and allocates memory, neither of which may be recorded, and compiles
// the step where the solo kernel can run it.
std::int64_t CudaBackend::repeat(Queue& queue, std::int64_t groups, std::int64_t most,
                                 const std::function<void()>& step) {
  auto& recorded = static_cast<Stream&>(queue).recorded()[groups];
  const std::int64_t times =
      recorded && recorded->solo ? std::min<std::int64_t>(most, SoloLauncher::most_times()) : 1;
  if (steps_ < options_.fail_at_step && options_.fail_at_step <= steps_ + times)
    check(cudaErrorLaunchFailure);
  const cudaStream_t stream = flushed_stream(queue);
  if (recorded && recorded->solo) {
    solo_->put(recorded->solo, static_cast<int>(times), static_cast<Stream&>(queue));
    steps_ += times;
    return times;
  }
  ++steps_;
  if (!recorded) {
    recorded = std::make_unique<Recorded>();
    const struct ResetAtEnd {
      std::shared_ptr<CompiledStep>*& target;
      ~ResetAtEnd() { target = nullptr; }
    } until_done{compile_into_};
    compile_into_ = &recorded->solo;
    step();
    return 1;
  }
  if (!recorded->graph && recorded->unrecorded < kUnrecorded) {
    ++recorded->unrecorded;
    step();
    return 1;
  }
  if (!recorded->graph) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      step();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph));
    const cudaError_t status = cudaGraphInstantiate(&recorded->graph, graph);
    cudaGraphDestroy(graph);
    check(status);
  }
  check(cudaGraphLaunch(recorded->graph, stream));
  return 1;
}

}  // namespace xlate::cuda
