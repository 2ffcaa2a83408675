// The CUDA backend: float32, float16 or bfloat16 on one GPU; the contract is in engine/backend.h.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/memory/pinned_pool.h"
#include "engine/cuda/paths.h"
#include "engine/cuda/products/gemm.h"
#include "engine/cuda/products/preparation.h"
#include "engine/cuda/work_clock.h"

namespace xlate::cuda {

/// Bytes taken on the device, and the bound on them.
struct Ledger {
  std::int64_t used = 0, peak = 0, limit = 0;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions&);
  ~CudaBackend() override;

  DeviceInfo info() const override;
  Buffer allocate(std::size_t bytes) override;
  void upload(Queue&, std::span<const std::byte> host, void* device) override;
  void change(Queue&, std::span<const Change>, std::int32_t* table) override;
  void upload_as(Queue&, std::span<const float> host, DType type, void* device) override;
  void clear(Queue&, void* device, std::size_t bytes) override;
  std::unique_ptr<Ticket> read_later(Queue&, std::span<const std::byte> device) override;
  std::unique_ptr<Queue> make_queue() override;
  void order(Queue& earlier, Queue& later) override;
  DType compute_type() const override { return type_; }
  std::size_t cache_budget() const override;
  std::int64_t row_multiple() const override { return 128; }
  std::int64_t bucket_of(std::int64_t groups) const override;
  std::int64_t repeat(Queue&, std::int64_t bucket, std::int64_t most, const std::function<void()>& step) override;
  void begin_work(Queue&, Work) override;
  void end_work(Queue&, Work) override;
  WorkSeconds work_seconds() override;
  int steps_ahead() const override { return 1; }
  DeviceMemory memory() const override;
  std::map<std::string, std::string> paths() const override { return paths_.list(); }

  void expect(std::span<const ExpectedLinear>) override;
  void embed(Queue&, const Embedding&, const std::int32_t* ids, const std::int32_t* positions, WideRows out) override;
  void embed_step(Queue&, const Embedding&, const SearchState&, const StepRows&, WideRows out) override;
  void layer_norm(Queue&, Tensor x, WideRows residual, const Norm&, WideRows out) override;
  void linear(Queue&, Tensor x, const Linear&, Activation, Tensor residual, Tensor out) override;
  void linear_norm(Queue&, Tensor x, const Linear&, WideRows residual, const Norm&, Tensor between, WideRows out) override;
  void attend_packed(Queue&, Tensor qkv, std::span<const std::int32_t> offsets_host, const std::int32_t* offsets, int heads, Tensor out) override;
  void begin_step(Queue&, const PagedCache& self, const PagedCache& cross, const std::int32_t* source_lengths, const SearchState&, const StepRows&) override;
  void attend_self(Queue&, Tensor qkv, const PagedCache&, const SearchState&, const StepRows&, int heads, Tensor out) override;
  void attend_cross(Queue&, Tensor query, const PagedCache&, const std::int32_t* source_lengths, const StepRows&, int heads, Tensor out) override;
  void store_cross(Queue&, Tensor keys_values, const std::int32_t* token_slots, const std::int32_t* positions, std::span<const PagedCache> layers) override;
  void start_slots(Queue&, const SearchRules&, std::span<const std::int32_t> slots, std::span<const std::int32_t> limits, const SearchState&) override;
  void search_step(Queue&, Tensor hidden, const Projection&, const SearchRules&, const StepRows&, const SearchState&) override;
  std::unique_ptr<Ticket> collect(Queue&, std::span<const std::int32_t> slots, const SearchState&) override;

 private:
  void open_device();
  std::string general_reason() const;
  void note_attention(AttentionKernel, int heads, const Tensor& out);
  void linear_then_norm(Queue&, Tensor x, const Linear&, WideRows residual, const Norm&, Tensor between, WideRows out);
  void prepare_library();
  cudaStream_t general(Queue&);
  RulesView view_of(Queue&, const SearchRules&);
  bool find_best_fused(Queue&, Tensor hidden, const Projection&, const RulesView&, const RowCandidates&, std::int64_t most_rows);
  void find_best(Queue&, Tensor hidden, const Projection&, const RulesView&, const RowCandidates&);
  struct StepKeys {
    Buffer heads, entries, taken;
    KeyLists lists{};
  };
  void make_room(StepKeys&, std::int64_t parts, std::int64_t stride);
  void list_step_keys(Queue&, const PagedCache& self, const PagedCache& cross, const std::int32_t* source_lengths, const SearchState&, const StepRows&);
  /// Lists the step's keys if they are not yet: a lone sentence's kernel has lists of its own.
  void list_now();
  /// The lists for one more attention of the step.
  static KeyLists next_attention(StepKeys&);
  /// Makes the buffer at least so large; nothing may be kept in it.
  void fit(Buffer&, std::int64_t bytes);
  template <class T>
  T* scratch_list(Queue&, std::span<const T> host, Buffer& device);

  BackendOptions options_;
  DType type_ = DType::kFloat16;
  std::int64_t context_bytes_ = 0;
  int capability_ = 0;  // 10·major + minor
  int multiprocessors_ = 0;
  std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
  std::unique_ptr<PinnedPool> pinned_;
  std::unique_ptr<Gemm> gemm_;
  std::unique_ptr<Preparation> preparation_;
  std::unique_ptr<SoloRecorder> solo_;  // where sentences are decoded one at a time
  std::unique_ptr<Event> order_event_;
  std::unique_ptr<WorkClock> clock_;
  std::int64_t steps_ = 0;
  Paths paths_;
  Buffer converted_;                                    // floats on their way into another type
  StepKeys self_keys_, cross_keys_;
  std::function<void()> unlisted_;                      // lists the keys of the step, where that was put off
  Buffer started_, collected_;                          // lists of slots
  Buffer never_chosen_;
  std::vector<std::int32_t> never_chosen_host_;
  Buffer logits_, partials_, candidate_values_, candidate_tokens_;  // of a search step
};

}  // namespace xlate::cuda
