// Collects verbs that have few rows into programs for the kernel of few_rows.h. They are launched once something else follows: a verb
// that does not fit, whose caller goes the general way, a copy, an event.
#pragma once

#include <memory>

#include "engine/backend.h"
#include "engine/cuda/few_rows.h"

namespace xlate::cuda {

class FewSteps {
 public:
  /// Null where the device cannot run them.
  static std::unique_ptr<FewSteps> open(Backend&, Queue&, int device, cudaStream_t);

  /// Launches what is collected: something else comes next.
  void flush();
  /// What is collected for a stream that ends: nobody has asked for its outcome, and what it reads may be gone.
  void forget(cudaStream_t);
  /// From here to `end` is one step.
  void begin();
  /// The program, if it was the whole step: launching it again is the same step again.
  std::unique_ptr<FewProgram> end();
  /// Up to so many times, until its sentences are done.
  void again(const FewProgram&, int times, cudaStream_t);
  /// Copies to the host's memory what the step at hand comes to; false where there is none that could.
  bool read(const void* device, void* host, std::size_t bytes, cudaStream_t);

  // Each is false where it does not fit.
  bool embed(const Embedding&, const std::int32_t* ids, const std::int32_t* positions, Tensor out, cudaStream_t);
  bool embed_step(const Embedding&, const SearchState&, const StepRows&, Tensor out, cudaStream_t);
  bool layer_norm(Tensor x, Tensor residual, const Norm&, Tensor out, cudaStream_t);
  bool linear(Tensor x, const Linear&, Activation, Tensor residual, Tensor out, cudaStream_t);
  /// Of one sentence.
  bool attend_packed(Tensor qkv, int heads, Tensor out, cudaStream_t);
  bool attend_self(Tensor qkv, const PagedCache&, const SearchState&, const StepRows&, int heads, Tensor out, cudaStream_t);
  bool attend_cross(Tensor query, const PagedCache&, const std::int32_t* source_lengths, const StepRows&, int heads, Tensor out, cudaStream_t);
  bool search_step(Tensor hidden, const Projection&, const RulesView&, int count, const StepRows&, const SearchState&, cudaStream_t);

 private:
  FewSteps(DType type, FewDevice device) : type_(type), device_(device) {}
  bool fits(Tensor) const;
  bool fits_cache(const PagedCache&) const;
  bool differs(const PagedCache&, FewKind, int heads) const;
  void share_out(FewOp&) const;
  void start_anew();
  void finish_program();
  bool fits_heads(Tensor query, int heads, Tensor out) const;
  bool attend(FewOp, Tensor query, int heads, Tensor out, cudaStream_t);
  bool embed(FewOp, const Embedding&, Tensor out, cudaStream_t);
  void bind(const StepRows&, const SearchState*);
  bool add(FewOp, cudaStream_t);
  void launch(const FewProgram&, cudaStream_t) const;
  bool has_step() const { return program_.count > 0 && program_.ops[program_.count - 1].kind == FewKind::kAdvance; }
  bool fuse(const FewOp&);
  void split_last();

  DType type_;
  FewDevice device_;
  Buffer met_, sums_, lists_;
  FewProgram program_{};
  cudaStream_t stream_ = nullptr;  // where the program is to go
  bool stepping_ = false, whole_ = false;  // whole: nothing else was in the step so far
  std::unique_ptr<FewProgram> launched_;
};

}  // namespace xlate::cuda
