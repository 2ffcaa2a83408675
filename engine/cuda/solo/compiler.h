// Makes the program of a decoding step of one sentence, with the search behind it, one launch of
// the kernel of solo.h: gives each room a place in shared memory, packs the weights, and lays the
// rest of a block's memory out. Says why where the kernel does not have such a step.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/solo/solo.h"

namespace xlate::cuda {

/// A whole step, with its lists on the device. Launching it again is the same step again.
struct SoloStep {
  SoloArgs program{};
  int clusters = 0;
  Buffer ops, hidden_rows, sums, lists;
  std::vector<Buffer> weights;  // packed
};

class SoloCompiler {
 public:
  /// The device holds `clusters` clusters of the kernel at once, and gives a block `shared_bytes`
  /// bytes.
  SoloCompiler(Backend& backend, int clusters, int shared_bytes)
      : backend_(backend), clusters_(clusters), shared_bytes_(shared_bytes) {}

  /// Null where the kernel does not have it: reason() says why.
  std::shared_ptr<SoloStep> compile(Stream&, const Program&, const Workspace&, const Step&,
                                    const Projection&, const RulesView&, int candidates);
  /// Why the last step that was refused was refused; empty where none was.
  const std::string& reason() const { return reason_; }

 private:
  struct Place {
    SoloRows rows, low_bits;
    std::int64_t columns;
  };
  /// Returns where a room's rows are. The first call for a room gives it its place.
  Place place(TensorId);
  /// Each throws Unfit where the kernel does not have the operation.
  void begin(const Step&, std::int64_t width);
  void add(const Embed&);
  void add(const ApplyLinear&);
  void add(const AddNorm&);
  void add(const AttendSelf&);
  void add(const AttendCross&);
  void attend(SoloKind, TensorId x, const PagedCache&, CacheView&, int heads, TensorId out);
  void append(SoloOp, const SoloRows& out);
  void finish(const Program&, const Projection&, const RulesView&, int candidates);
  void link();
  bool lay_out(SoloArgs&, int longest_source);
  bool lay_out(SoloArgs&, int longest_source, int held_keys);
  /// Null where the device has no room for it.
  std::shared_ptr<SoloStep> completed(Stream&, SoloArgs, Tensor vocabulary);
  Buffer pack(Stream&, Tensor weight, int slice_rows, int round_rows);

  Backend& backend_;
  int clusters_, shared_bytes_;
  std::string reason_;
  bool no_room_ = false;  // the device has no memory for the packed copy of the weights
  // The step that is being compiled; of no meaning between two calls.
  const Workspace* workspace_ = nullptr;
  const Step* step_ = nullptr;
  SoloArgs args_{};
  std::vector<SoloOp> ops_;
  std::vector<Tensor> weights_;          // of each operation, or none
  std::map<std::size_t, Place> places_;  // by room
  int row_bytes_ = 0;
  std::vector<SoloRows>
      read_since_;  // since the exchange before the last: others may still read them
};

}  // namespace xlate::cuda
