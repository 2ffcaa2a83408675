// SoloCompiler turns the program of a decoding step of one sentence, with the search behind it,
// into the arguments of the solo kernel (solo.h). It lists the operations, has the products divided
// among the blocks (division.h) and their shared memory laid out (layout.h), and packs the weights.
// Where the kernel does not support a step, it says why.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/solo/layout.h"

namespace xlate::cuda {

/// This is a compiled step, with the device memory that its arguments point to. It can be launched
/// again and again.
struct CompiledStep {
  SoloArgs args{};
  int blocks = 0;
  Buffer ops, hidden_rows, sums, lists, posted;
  // This is the round of flags (launcher.h) that words in `posted` may have, or 0 before the first.
  unsigned flag_round = 0;
  // These are the packed weights.
  std::vector<Buffer> weights;
};

class SoloCompiler {
 public:
  /// The device must have this room for blocks with `shared_bytes` bytes of dynamic shared memory
  /// (prepare_solo_step).
  SoloCompiler(Backend& backend, SoloRoom room, int shared_bytes)
      : backend_(backend), room_(room), shared_bytes_(shared_bytes) {}

  /// Returns the compiled step. Returns null if the kernel does not support the step, or if the
  /// device has no memory for the packed weights; reason() says why.
  std::shared_ptr<CompiledStep> compile(Stream&, const Program&, const Workspace&, const Step&,
                                        const Projection&, const RulesView&, int candidates);
  /// Returns the step without the memory that compile() allocates. Returns nothing if the kernel
  /// does not support the step; reason() says why. It needs no device.
  std::optional<SoloPlan> plan(const Program&, const Workspace&, const Step&, const Projection&,
                               const RulesView&, int candidates);
  /// Returns why the last refused step was refused. It is empty if none was.
  const std::string& reason() const { return reason_; }

 private:
  // This is the place of a tensor's rows in shared memory.
  struct Place {
    SoloRows rows, low_bits;
    std::int64_t columns;
  };
  void find_in_place_norms(const Program&);
  /// Returns the place of a tensor's rows. The first call for a tensor assigns it.
  Place place(TensorId);
  // These functions throw Unfit if the kernel does not support the step or the operation.
  SoloPlan planned(const Program&, const Workspace&, const Step&, const Projection&,
                   const RulesView&, int candidates);
  void begin(const Step&, std::int64_t width);
  void add(const Embed&);
  void add(const ApplyLinear&);
  void add(const ApplyGate&);
  void add(const AddNorm&);
  void add(const TransformHeads&);
  void add(const Keep&);
  void add(const AttendSelf&);
  void add(const AttendPrompts&);
  void add(const AttendCross&);
  void add_norm(const Norm&, const SoloRows& x, const Place& stream, const Place& out,
                bool stores_sum);
  void attend(SoloKind, TensorId x, const PagedCache&, CacheView&, const Attention&, TensorId out);
  void append(const SoloOp&, const Tensor& weight = {});
  void finish(const Program&, const Projection&, const RulesView&, int candidates);
  /// Finds what may be fetched ahead, and which products go to heads alone.
  void link();
  /// Returns null if the device has no memory for the step.
  std::shared_ptr<CompiledStep> completed(Stream&, SoloPlan, Tensor vocabulary);
  /// Returns how many blocks run a step.
  int blocks_of(const SoloArgs&) const;
  /// Packs a weight. The fields of the packing that the weight has need not be set.
  Buffer pack(Stream&, Tensor weight, SoloPacking);

  Backend& backend_;
  SoloRoom room_;
  int shared_bytes_;
  std::string reason_;
  // The device had no memory for a step's packed weights. No other step is tried.
  bool no_room_ = false;
  // The remaining members belong to the step that is being compiled.
  const Workspace* workspace_ = nullptr;
  const Step* step_ = nullptr;
  SoloArgs args_{};
  std::vector<SoloOp> ops_;
  // Each operation has its weight here, or an empty tensor.
  std::vector<Tensor> weights_;
  // The keys are the indices of tensors.
  std::map<std::size_t, Place> places_;
  // The keys are the indices of tensors that norms write in the place of the other tensor.
  std::map<std::size_t, TensorId> in_place_;
  // So many rows have got a number, which SoloRows::at is until share_rows gives them memory.
  int numbered_ = 0;
};

}  // namespace xlate::cuda
