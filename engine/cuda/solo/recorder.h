// Records the verbs of a decoding step of one sentence, from the token's embedding to the search, and makes them one launch of the kernel of
// solo.h. A step that does not fit is done verb by verb, like any other.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/solo/solo.h"

namespace xlate::cuda {

/// A whole step, with its lists on the device.
struct SoloStep {
  SoloProgram program{};
  int clusters = 0;
  Buffer ops, hidden_rows, sums, lists;
  std::vector<Buffer> weights;  // packed
};

class SoloRecorder {
 public:
  using Verb = std::function<void()>;

  /// Why the last step that did not fit did not; empty where all did.
  const std::string& reason() const { return reason_; }

  /// Null where the device cannot run the kernel.
  static std::unique_ptr<SoloRecorder> open(Backend&, int device);

  /// Something else comes next: launches the step that is complete, or calls the verbs of one that is not.
  void flush();
  /// Of a queue that ends: nobody has asked for the step's outcome, and what it reads may be gone.
  void forget(const Queue&);
  /// From here to `end` is one step.
  void begin();
  /// The step, if it could be recorded as a whole: launching it again is the same step again.
  std::shared_ptr<SoloStep> end();
  /// From here to `refuse(false)` no verb is taken: a graph is being captured.
  void refuse(bool refused) { replaying_ = refused; }
  /// Up to so many times, until its sentence is done.
  void again(std::shared_ptr<SoloStep>, int times, Queue&);
  static int most_times() { return kSoloMostSteps; }
  /// Copies to the host's memory what the step at hand comes to; false where there is none.
  bool read(const void* device, void* host, std::size_t bytes, const Queue&);

  // Each tells whether the verb was taken: then it is not to be done now, but `verb` will be called where the step turns out not to fit.
  bool embed_step(const Embedding&, const SearchState&, const StepRows&, WideRows out, Queue&, Verb);
  bool linear(Tensor x, const Linear&, Activation, Tensor residual, Tensor out, const Queue&, Verb);
  bool linear_norm(Tensor x, const Linear&, WideRows residual, const Norm&, Tensor between, WideRows out, const Queue&, Verb);
  bool attend_self(Tensor qkv, const PagedCache&, const SearchState&, const StepRows&, int heads, Tensor out, const Queue&, Verb);
  bool attend_cross(Tensor query, const PagedCache&, const std::int32_t* source_lengths, const StepRows&, int heads, Tensor out, const Queue&, Verb);
  /// The last one.
  bool search_step(Tensor hidden, const Projection&, const RulesView&, int candidates, const StepRows&, const SearchState&, const Queue&);

 private:
  SoloRecorder(Backend& backend, int clusters, int shared_bytes) : backend_(backend), clusters_(clusters), shared_bytes_(shared_bytes) {}
  struct Place {
    SoloRows rows;
    std::int64_t columns;
  };
  bool records(const Queue& queue) const { return recording_ && &queue == queue_; }
  bool is_of_step(const StepRows& rows) const { return rows.slots == program_.slots && rows.rows() == program_.beams; }
  /// Where these rows are; null where they are not, or not as a whole.
  const SoloRows* find(Tensor) const;
  const SoloRows* place(Tensor);
  /// Of WideRows, whose rest may be empty: false where not both can be.
  bool find(const WideRows&, SoloRows& rounded, SoloRows& rest) const;
  bool place(const WideRows&, SoloRows& rounded, SoloRows& rest);
  bool give_up(const Queue&, const std::string& why);
  /// Whether the kernel has such a product of rows that it has.
  bool serves(Tensor x, const Linear&, std::int64_t width) const;
  SoloOp linear_op(Tensor x, const Linear&, Activation);
  bool add(SoloOp, const SoloRows& out, Verb);
  bool attend(SoloKind, Tensor x, const PagedCache&, CacheView&, int heads, Tensor out, Verb);
  void link();
  bool lay_out(SoloProgram&, int longest_source);
  bool lay_out(SoloProgram&, int longest_source, int held_keys);
  /// Null where the device has no room for it.
  std::shared_ptr<SoloStep> completed(SoloProgram, Tensor vocabulary);
  Buffer pack(Tensor weight, int share_rows, int pass_rows);
  void launch();

  Backend& backend_;
  int clusters_, shared_bytes_;
  Buffer signals_;
  unsigned launches_ = 0;
  // The step that is being recorded.
  bool recording_ = false, replaying_ = false, no_room_ = false;
  Queue* queue_ = nullptr;
  const Queue* launched_on_ = nullptr;  // the last time
  SoloProgram program_{};
  std::vector<SoloOp> ops_;
  std::vector<Tensor> weights_;  // of each operation, or none
  std::vector<Verb> verbs_;
  std::map<const void*, Place> places_;
  int row_bytes_ = 0;
  std::vector<SoloRows> read_since_;  // since the exchange before the last: others may still read them
  // The one that is to be launched.
  std::shared_ptr<SoloStep> pending_, launched_;
  int times_ = 1;
  bool stepping_ = false, whole_ = false;
  std::string reason_;
};

}  // namespace xlate::cuda
