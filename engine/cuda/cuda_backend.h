// CudaBackend computes in float32, float16 or bfloat16 on one GPU. The contract is in
// engine/backend.h.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/attention/attention.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/kernel_paths.h"
#include "engine/cuda/memory/pinned_pool.h"
#include "engine/cuda/products/gemm.h"
#include "engine/cuda/products/preparation.h"
#include "engine/cuda/solo/launcher.h"
#include "engine/cuda/work_clock.h"

namespace xlate::cuda {

/// Counts the bytes that are allocated on the device, and bounds them.
struct MemoryUsage {
  std::int64_t used = 0, peak = 0, limit = 0;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions&);
  ~CudaBackend() override;

  DeviceInfo info() const override;
  Buffer allocate(std::size_t bytes) override;
  void upload(Queue&, std::span<const std::byte> host, void* device) override;
  void update_table(Queue&, std::span<const TableUpdate>, std::int32_t* table) override;
  void upload_as(Queue&, std::span<const float> host, DType type, void* device) override;
  void clear(Queue&, void* device, std::size_t bytes) override;
  std::unique_ptr<PendingRead> read_later(Queue&, std::span<const std::byte> device) override;
  std::unique_ptr<Queue> make_queue() override;
  void order(Queue& earlier, Queue& later) override;
  DType compute_type() const override { return type_; }
  std::size_t cache_budget() const override;
  std::int64_t row_multiple() const override { return 128; }
  std::int64_t padded_groups(std::int64_t groups) const override;
  std::int64_t repeat(Queue&, std::int64_t groups, std::int64_t most,
                      const std::function<void()>& step) override;
  void begin_work(Queue&, Work) override;
  void end_work(Queue&, Work) override;
  WorkSeconds work_seconds() override;
  int steps_ahead() const override { return 1; }
  DeviceMemory memory() const override;
  std::map<std::string, std::string> paths() const override { return paths_.list(); }

  void prepare(const Program&, std::int64_t most_rows) override;
  void run(Queue&, const Program&, const Workspace&, const PackedRows&) override;
  void run(Queue&, const Program&, const Workspace&, const Step&) override;
  void decode(Queue&, const Program&, const Workspace&, const Step&, const Projection&,
              const SearchRules&) override;
  void embed(Queue&, const Embedding&, const PackedRows&, ResidualRows out) override;
  void embed(Queue&, const Embedding&, const Step&, ResidualRows out) override;
  void linear(Queue&, Tensor x, const Linear&, Activation, Tensor out) override;
  void gate(Queue&, Tensor x, Activation, Tensor out) override;
  void add_norm(Queue&, ResidualRows stream, const Addend& y, const Norm& after, const Norm& before,
                Tensor normed) override;
  void transform_heads(Queue&, Tensor qkv, const PackedRows&, const HeadTransform&,
                       const Attention&) override;
  void transform_heads(Queue&, Tensor qkv, const Step&, const HeadTransform&,
                       const Attention&) override;
  void copy(Queue&, Tensor from, Tensor to) override;
  void attend_self(Queue&, Tensor qkv, const PackedRows&, const Attention&, Tensor out) override;
  void attend_prompts(Queue&, Tensor queries, Tensor keys_values, const PackedRows&,
                      const Attention&, Tensor out) override;
  void attend_self(Queue&, Tensor qkv, const Step&, std::size_t layer, const Attention&,
                   Tensor out) override;
  void attend_cross(Queue&, Tensor query, const PackedRows&, Tensor keys_values, const Attention&,
                    Tensor out) override;
  void attend_cross(Queue&, Tensor query, const Step&, std::size_t layer, const Attention&,
                    Tensor out) override;
  void align(Queue&, Tensor query, const PackedRows&, Tensor keys_values, const Attention&,
             const HeadSet&, std::int32_t* out) override;
  void store_keys(Queue&, Tensor keys_values, const std::int32_t* token_slots,
                  const std::int32_t* positions, std::span<const PagedCache> layers) override;
  void start_slots(Queue&, const SearchRules&, std::span<const SlotStart> starts,
                   const SearchState&) override;
  void log_probabilities(Queue&, Tensor hidden, const Projection&, const std::int32_t* ids,
                         float* out) override;
  void search_step(Queue&, Tensor hidden, const Projection&, const SearchRules&, const StepRows&,
                   const SearchState&) override;
  std::unique_ptr<PendingRead> collect(Queue&, std::span<const std::int32_t> slots,
                                       const SearchState&) override;

 private:
  void open_device();
  std::string general_reason() const;
  void note_attention(AttentionKernel, const Attention&, const PagedCaches&);
  template <class Batch>
  void run_operations(Queue&, const Program&, const Workspace&, const Batch&);
  /// Computes `linear` into `sums` and `add_norm` of them, in one kernel if there is one for these
  /// shapes and it is faster. Batch-one mode always takes two kernels.
  void linear_norm(Queue&, Tensor x, const Linear&, Tensor sums, ResidualRows stream,
                   const Norm& after, const Norm& before, Tensor normed);
  /// Computes the same by a product into `sums` and a norm that reads them.
  void linear_then_norm(Queue&, Tensor x, const Linear&, Tensor sums, ResidualRows stream,
                        const Norm& after, const Norm& before, Tensor normed);
  /// Computes `add_norm` of y + bias, without the norm inside. `bias` has the compute type and may
  /// be absent.
  void add_norm(Queue&, ResidualRows stream, const Addend& y, const Tensor& bias, const Norm& after,
                const Norm& before, Tensor normed);
  void norm_in_place(Queue&, Tensor rows, const Norm&);
  void prepare_library();
  /// Returns a product of a program for up to `most_rows` rows. All of its operands lie in `memory`
  /// and have `rows` rows. `before_norm` says that its output is the accumulators that a norm adds,
  /// and `fusable` that a kernel may compute the two together.
  Preparation::Expected expected_product(std::int64_t in, std::int64_t out, bool bias,
                                         bool before_norm, bool fusable, Activation, void* memory,
                                         std::int64_t rows, std::int64_t most_rows) const;
  cudaStream_t flushed_stream(Queue&);
  RulesView view_of(Queue&, const SearchRules&);
  /// `most_rows` is the number of rows that the scratch memory is made for.
  bool find_best_fused(Queue&, Tensor hidden, const Projection&, const RulesView&,
                       const RowCandidates&, std::int64_t most_rows);
  template <class Use>
  void with_logits(Queue&, Tensor hidden, const Projection&, const Use& use);
  void find_best(Queue&, Tensor hidden, const Projection&, const RulesView&, const StepRows&,
                 const SearchState&, const RowCandidates&);
  struct StepKeys {
    Buffer headers, entries, taken;
    KeyLists lists{};
  };
  void grow_key_lists(StepKeys&, std::int64_t beam_tiles, std::int64_t stride);
  void prepare_key_lists(Queue&, const Step&);
  /// Lists the keys of the step, unless run() has listed them for all operations of its program.
  void ensure_key_lists(Queue& queue, const Step& step) {
    if (listed_step_ != &step) prepare_key_lists(queue, step);
  }
  /// Returns the lists for one more attention of the step.
  static KeyLists next_attention(StepKeys&);
  /// Makes the buffer at least so large. Its contents are lost if it grows.
  void grow(Buffer&, std::int64_t bytes);
  template <class T>
  T* scratch_list(Queue&, std::span<const T> host, Buffer& device);

  BackendOptions options_;
  DType type_ = DType::kFloat16;
  std::int64_t context_bytes_ = 0;
  // This is 10·major + minor.
  int capability_ = 0;
  int multiprocessors_ = 0;
  std::shared_ptr<MemoryUsage> memory_usage_ = std::make_shared<MemoryUsage>();
  std::unique_ptr<PinnedPool> pinned_;
  std::unique_ptr<Gemm> gemm_;
  std::unique_ptr<Preparation> preparation_;
  // It is null unless sentences are decoded one at a time and the device can run the solo kernel.
  std::unique_ptr<SoloLauncher> solo_;
  // decode() leaves the step that it compiles here. It is null where no step is to be compiled.
  std::shared_ptr<CompiledStep>* compile_into_ = nullptr;
  std::unique_ptr<Event> order_event_;
  std::unique_ptr<WorkClock> clock_;
  std::int64_t steps_ = 0, allocations_ = 0;
  KernelPaths paths_;
  // Holds floats before they are converted to another type.
  Buffer converted_;
  StepKeys self_keys_, cross_keys_;
  // While run() runs the program of a step, this is the step, whose keys the lists hold.
  const Step* listed_step_ = nullptr;
  // Each holds a list of slots.
  Buffer started_, collected_;
  // It holds the ids that are never chosen, and behind them all end tokens but the first.
  Buffer rule_ids_;
  std::vector<std::int32_t> rule_ids_host_;
  // These belong to a step of search.
  Buffer logits_, partials_, candidate_values_, candidate_tokens_, row_ids_;
};

}  // namespace xlate::cuda
