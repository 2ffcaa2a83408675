// CpuBackend computes on the CPU: products by oneDNN with packed weights, in float32, bfloat16 or
// int8, and everything else by loops over rows in float32. Where products are not in float32,
// caches hold bfloat16: a step reads more bytes of keys and values than of weights. The contract is
// in engine/backend.h.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/cpu/products/packed_matrix.h"
#include "engine/cpu/slot_search.h"
#include "engine/cpu/thread_pool.h"
#include "engine/cpu/vocabulary.h"

namespace xlate::cpu {

/// Holds the memory that one thread needs while it works. It grows to the largest need and is then
/// kept.
struct Scratch {
  std::vector<const void*> rows;
  std::vector<float> numbers, biases;
  // These are packed panels of weights, in float32.
  std::vector<std::byte> panels;
  // It holds the sums of a product with one panel.
  alignas(64) float sums[kMostProductRows * PackedMatrix::kMostColumns];
  float* numbers_of(std::int64_t count) {
    if (numbers.size() < static_cast<std::size_t>(count))
      numbers.resize(static_cast<std::size_t>(count));
    return numbers.data();
  }
  /// Returns room for so many packed panels of the weight, at a multiple of kPanelAlignment.
  std::byte* room_for(const PackedMatrix& weight, std::int64_t count) {
    std::size_t bytes = static_cast<std::size_t>(count) * weight.panel_bytes() + kPanelAlignment;
    if (panels.size() < bytes) {
      panels.clear();
      panels.resize(bytes);
    }
    void* room = panels.data();
    return static_cast<std::byte*>(
        std::align(kPanelAlignment, bytes - kPanelAlignment, room, bytes));
  }
  /// Returns room for so many panels that PackedMatrix::weights_of() widens, or null if it widens
  /// none.
  std::byte* room_to_widen(const PackedMatrix& weight, std::int64_t count) {
    return weight.has_narrow_panels() ? room_for(weight, count) : nullptr;
  }
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions&);

  DeviceInfo info() const override;
  std::map<std::string, std::string> paths() const override;
  Buffer allocate(std::size_t bytes) override;
  void upload(Queue&, std::span<const std::byte> host, void* device) override;
  void update_table(Queue&, std::span<const TableUpdate>, std::int32_t* table) override;
  std::unique_ptr<PendingRead> read_later(Queue&, std::span<const std::byte> device) override;
  std::unique_ptr<Queue> make_queue() override;
  void order(Queue&, Queue&) override {}
  void upload_as(Queue&, std::span<const float> host, DType type, void* device) override;
  std::shared_ptr<const PackedWeight> pack(
      std::int64_t rows, std::int64_t columns,
      const std::function<void(std::int64_t, std::int64_t, float*)>& read) override;
  void clear(Queue&, void* device, std::size_t bytes) override;
  std::int64_t repeat(Queue&, std::int64_t, std::int64_t,
                      const std::function<void()>& step) override {
    step();
    return 1;
  }
  void begin_work(Queue&, Work) override;
  void end_work(Queue&, Work) override;
  WorkSeconds work_seconds() override { return seconds_; }
  DType compute_type() const override { return DType::kFloat32; }
  DType cache_type() const override {
    return options_.precision == Precision::kInt8 || options_.precision == Precision::kBFloat16
               ? DType::kBFloat16
               : DType::kFloat32;
  }
  std::size_t cache_budget() const override;
  int steps_ahead() const override { return 0; }

  using Backend::run;
  void run(Queue&, const Program&, const Workspace&, const PackedRows&) override;
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
  std::unique_ptr<PendingRead> collect(Queue&, std::span<const std::int32_t> slots,
                                       const SearchState&) override;
  void log_probabilities(Queue&, Tensor hidden, const Projection&, const std::int32_t* ids,
                         float* out) override;
  void search_step(Queue&, Tensor hidden, const Projection&, const SearchRules&, const StepRows&,
                   const SearchState&) override;

 private:
  struct VocabularyScan {
    ProductInputs hidden;
    const PackedMatrix& weight;
    const Projection& projection;
    const SearchRules& rules;
    // The vocabulary has a split for each thread: the chunks that the thread happens to take.
    std::int64_t splits;
    // This many of the best tokens are kept for each row and split.
    int count;
  };
  // Says which of two ways have been taken: each thread has computed parts of a batch, or all
  // threads have computed each operation together.
  struct Ways {
    bool in_parts = false, together = false;
  };
  /// Rounds the rows of keys and values in place, as the caches hold those of a step, so that the
  /// decoder computes the same of targets that are given.
  void round_as_cached(Tensor keys_values);
  void attend_packed(Tensor queries, const PackedRows&, Tensor keys_values,
                     std::span<const std::int32_t> key_offsets, const Attention&, bool causal,
                     Tensor out);
  void scan_chunk(const VocabularyScan&, std::int64_t split, std::int64_t chunk, Scratch&);
  void scan_row(const VocabularyScan&, std::int64_t split, std::int64_t chunk, std::int64_t row,
                std::span<float> logits);
  void sum_chunks(std::int64_t rows, std::int64_t chunks);
  std::int64_t find_best(Tensor hidden, const Projection&, const SearchRules&, int count);
  void project_rows(Tensor hidden, const Projection&);
  void find_best_of_row(const SearchRules&, const SlotSearch&, std::int64_t beam, std::int64_t row,
                        std::span<float> logits);
  std::int64_t find_best_by_row_rules(Tensor hidden, const Projection&, const SearchRules&,
                                      const StepRows&, const SearchState&);
  std::vector<Scored> best_of_row(std::int64_t row, std::int64_t splits, int count) const;
  std::vector<Candidate> candidates_of(const SlotSearch&, const SearchRules&, BeamGroup,
                                       std::int64_t first_row, std::int64_t splits) const;
  bool overflows(const SlotSearch&, std::int64_t group, std::int64_t beams) const;
  /// Returns the layer's packed weights. Weights that are plain, as in tests, are packed.
  std::shared_ptr<const PackedMatrix> packed_weight(const Linear&);
  /// Returns the rows x in the type in which products with the weights read them. They are valid
  /// until the next call.
  ProductInputs inputs_of(Tensor x, const PackedMatrix&);

  CpuBackend(const BackendOptions&, std::shared_ptr<ProductLibrary>);
  /// Returns into how many parts a batch of so many rows is divided, of which each is computed by
  /// one thread, or 1 if all threads compute each operation together. `weight_bytes` are those of
  /// the weights that each part reads.
  std::int64_t parts_of(std::int64_t rows, std::size_t weight_bytes) const;
  /// Divides a batch into parts with whole sentences. Returns the first sentence of each part, and
  /// the number of sentences, or nothing if all threads compute each operation together.
  std::vector<std::size_t> divide(const Program&, const PackedRows&) const;

  const BackendOptions options_;
  const std::shared_ptr<ProductLibrary> products_;
  ThreadPool pool_;
  // Each thread has one.
  std::vector<Scratch> scratch_;
  // If there are several threads, each has a backend for itself, by which it computes a part of a
  // batch. They share the library.
  std::vector<std::unique_ptr<CpuBackend>> of_threads_;
  // Say how packed rows and steps have been computed.
  Ways packed_ways_, step_ways_;
  // Where row rules apply, the logits of this many rows are in memory at a time.
  std::int64_t ruled_rows_ = kMostProductRows;
  SearchScratch search_;
  // These are the inputs of a product, where they are not the rows themselves.
  std::vector<std::byte> inputs_;
  std::vector<float> input_scales_;
  std::int64_t allocations_ = 0;
  std::chrono::steady_clock::time_point work_start_;
  WorkSeconds seconds_;
};

}  // namespace xlate::cpu
