// Launches the lone sentence's kernel. A step that was asked for waits until something else is
// asked for: if that is the step's outcome, the kernel itself copies it to the host.
#pragma once

#include <memory>

#include "engine/cuda/solo/compiler.h"

namespace xlate::cuda {

class SoloLauncher {
 public:
  /// Null where the device cannot run the kernel.
  static std::unique_ptr<SoloLauncher> open(Backend&, int device);

  SoloCompiler& compiler() { return compiler_; }
  /// A step is to run next, up to so many times, until its sentence is done.
  void put(std::shared_ptr<SoloStep>, int times, Stream&);
  static int most_times() { return kSoloMostSteps; }
  /// Copies to the host's memory what the step at hand comes to; false where there is none.
  bool read(const void* device, void* host, std::size_t bytes, const Stream&);
  /// Something else comes next: launches the step at hand, if there is one.
  void flush();
  /// A queue ends. Its step at hand is dropped: nobody has asked for the outcome, and what it reads
  /// may be gone.
  void forget(const Stream&);

 private:
  SoloLauncher(Backend& backend, int clusters, int shared_bytes)
      : compiler_(backend, clusters, shared_bytes),
        type_(backend.compute_type()),
        signals_(backend.allocate(sizeof(SoloSignals))) {}

  SoloCompiler compiler_;
  DType type_;
  Buffer signals_;
  unsigned launches_ = 0;
  std::shared_ptr<SoloStep> pending_;
  int times_ = 1;
  Stream* queue_ = nullptr;              // of the step at hand
  const Stream* launched_on_ = nullptr;  // the last time
};

}  // namespace xlate::cuda
