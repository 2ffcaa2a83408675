// This file launches compiled steps of the solo kernel (launcher.h).
#include "engine/cuda/solo/launcher.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <utility>

namespace xlate::cuda {
namespace {

// This much shared memory is left for what does not depend on the model: SoloBlock, and the
// alignment of the dynamic shared memory behind it.
constexpr int kReservedBytes = 2048;
// The kernel copies at most this many bytes to the host.
constexpr std::size_t kMostCopied = 1024;
// SoloSignals::hidden has 24 bits for the number of a launch.
constexpr unsigned kLaunchNumbers = 1u << 24;

template <class Body>
auto with_type(DType type, const Body& body) {
  return type == DType::kFloat16 ? body(__half{}) : body(__nv_bfloat16{});
}

}  // namespace

std::unique_ptr<SoloLauncher> SoloLauncher::open(Backend& backend, int device) {
  int major = 0, minor = 0, shared = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const DType type = backend.compute_type();
  if (major != 9 || minor != 0 || size_of(type) != 2) return nullptr;
  const int bytes = shared - kReservedBytes;
  const SoloRoom room =
      with_type(type, [&](auto tag) { return prepare_solo_step<decltype(tag)>(bytes); });
  if (room.narrow_blocks == 0) {
    cudaGetLastError();
    return nullptr;
  }
  return std::unique_ptr<SoloLauncher>(new SoloLauncher(backend, room, bytes));
}

void SoloLauncher::put(std::shared_ptr<CompiledStep> step, int times, Stream& queue) {
  flush();
  pending_ = std::move(step);
  times_ = times;
  queue_ = &queue;
}

bool SoloLauncher::read(const void* device, void* host, std::size_t bytes, const Stream& queue) {
  if (!pending_ || &queue != queue_ || bytes % sizeof(std::int32_t) != 0 || bytes > kMostCopied)
    return false;
  SoloArgs& args = pending_->args;
  args.copy_from = static_cast<const std::int32_t*>(device);
  args.copy_to = static_cast<std::int32_t*>(host);
  args.copy_words = static_cast<int>(bytes / sizeof(std::int32_t));
  flush();
  return true;
}

void SoloLauncher::flush() {
  if (!pending_) return;
  const std::shared_ptr<CompiledStep> step = std::exchange(pending_, nullptr);
  SoloArgs args = step->args;
  // The copy to the host belongs to this launch only.
  step->args.copy_from = nullptr, step->args.copy_to = nullptr, step->args.copy_words = 0;
  args.signals = signals_.as<SoloSignals>();
  args.launch = launches_ = (launches_ + 1) % kLaunchNumbers;
  args.times = times_;
  // A step has at most one exchange for each operation, and one for the search.
  if (args.post.words)
    args.post.flag = take_flags(*step, static_cast<unsigned>(times_ * (args.count + 1)));
  // Launches share SoloSignals, so a launch must end before the next one begins. On one stream this
  // is so anyway.
  if (launched_on_ && launched_on_ != queue_) check(cudaDeviceSynchronize());
  launched_on_ = queue_;
  with_type(type_,
            [&](auto tag) { run_solo_step<decltype(tag)>(args, step->blocks, queue_->get()); });
  check(cudaGetLastError());
}

unsigned SoloLauncher::take_flags(CompiledStep& step, unsigned count) {
  if (next_flag_ + count < next_flag_) next_flag_ = 1, ++flag_round_;
  if (step.flag_round != flag_round_) {
    check(cudaMemsetAsync(step.posted.data(), 0, step.posted.bytes(), queue_->get()));
    step.flag_round = flag_round_;
  }
  return std::exchange(next_flag_, next_flag_ + count);
}

void SoloLauncher::forget(const Stream& queue) {
  if (&queue == launched_on_) {
    // The next launch, on another queue, uses the same SoloSignals.
    cudaStreamSynchronize(queue.get());
    launched_on_ = nullptr;
  }
  if (&queue == queue_) pending_ = nullptr, queue_ = nullptr;
}

}  // namespace xlate::cuda
