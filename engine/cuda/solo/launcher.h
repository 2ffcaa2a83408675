// SoloLauncher launches the solo kernel. It keeps a step until something else is asked for. If that
// is a copy to the host of what the step computes, the kernel itself makes the copy.
#pragma once

#include <memory>

#include "engine/cuda/solo/compiler.h"

namespace xlate::cuda {

class SoloLauncher {
 public:
  /// Returns null if the device or the compute type does not support the kernel.
  static std::unique_ptr<SoloLauncher> open(Backend&, int device);

  SoloCompiler& compiler() { return compiler_; }
  /// Launches the pending step, if there is one, and makes this step the pending one. It will run
  /// `times` times, or until its sentence is done. The queue must live until the step is launched
  /// or forgotten.
  void put(std::shared_ptr<CompiledStep>, int times, Stream&);
  static int most_times() { return kSoloMostSteps; }
  /// Launches the pending step of this queue, with a copy of device memory to pinned host memory
  /// behind its last step. Returns false, and does nothing, if no step is pending on this queue or
  /// if the kernel does not support a copy of this size.
  bool read(const void* device, void* host, std::size_t bytes, const Stream&);
  /// Launches the pending step, if there is one. Whatever else uses a queue calls it first.
  void flush();
  /// Must be called when a queue ends. Drops the queue's pending step: nobody has asked for its
  /// outcome, and the memory that it reads may have been freed.
  void forget(const Stream&);

 private:
  /// Takes the flags of a launch, and clears what a step has posted with those of an older round.
  unsigned take_flags(CompiledStep&, unsigned count);
  SoloLauncher(Backend& backend, SoloRoom room, int shared_bytes)
      : compiler_(backend, room, shared_bytes),
        type_(backend.compute_type()),
        signals_(backend.allocate(sizeof(SoloSignals))) {}

  SoloCompiler compiler_;
  DType type_;
  Buffer signals_;
  // This is the number of the last launch.
  unsigned launches_ = 0;
  // This is SoloPost::flag of the next launch. What nobody has posted yet has the flag 0. When no
  // flags are left for a launch, a new round of them begins, which a step must see before any word
  // of an older one. The first round is short, so that every longer run begins a second one.
  unsigned next_flag_ = 0u - kFlagsOfFirstRound, flag_round_ = 1;
  static constexpr unsigned kFlagsOfFirstRound = 10'000;
  std::shared_ptr<CompiledStep> pending_;
  int times_ = 1;
  // The pending step will run on this queue.
  Stream* queue_ = nullptr;
  // The last launch was on this queue. It is null if there was none, or if the queue has ended.
  const Stream* launched_on_ = nullptr;
};

}  // namespace xlate::cuda
