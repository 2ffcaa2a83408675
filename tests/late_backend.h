// This header has backends that wrap another backend and change one property of it: whether it
// records steps, or how late it tells the outcome of a step.
#pragma once

#include "tests/support.h"

namespace xlate::test {

/// Passes the calls on to another backend, except that it runs each step and never records it.
/// Therefore a step may run code on the host, as the steps of a TableModel do. paths() is not
/// passed on and returns nothing.
class UnrecordedBackend : public Backend {
 public:
  explicit UnrecordedBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  std::int64_t repeat(Queue&, std::int64_t, std::int64_t,
                      const std::function<void()>& step) override {
    step();
    return 1;
  }

  int steps_ahead() const override { return backend_->steps_ahead(); }
  std::unique_ptr<PendingRead> read_later(Queue& queue,
                                          std::span<const std::byte> device) override {
    return backend_->read_later(queue, device);
  }
  DeviceMemory memory() const override { return backend_->memory(); }
  DeviceInfo info() const override { return backend_->info(); }
  Buffer allocate(std::size_t bytes) override { return backend_->allocate(bytes); }
  void upload(Queue& queue, std::span<const std::byte> host, void* device) override {
    backend_->upload(queue, host, device);
  }
  void update_table(Queue& queue, std::span<const TableUpdate> changes,
                    std::int32_t* table) override {
    backend_->update_table(queue, changes, table);
  }
  std::unique_ptr<Queue> make_queue() override { return backend_->make_queue(); }
  void order(Queue& earlier, Queue& later) override { backend_->order(earlier, later); }
  void upload_as(Queue& queue, std::span<const float> host, DType type, void* device) override {
    backend_->upload_as(queue, host, type, device);
  }
  void clear(Queue& queue, void* device, std::size_t bytes) override {
    backend_->clear(queue, device, bytes);
  }
  std::int64_t row_multiple() const override { return backend_->row_multiple(); }
  std::int64_t padded_groups(std::int64_t groups) const override {
    return backend_->padded_groups(groups);
  }
  void begin_work(Queue& queue, Work work) override { backend_->begin_work(queue, work); }
  void end_work(Queue& queue, Work work) override { backend_->end_work(queue, work); }
  WorkSeconds work_seconds() override { return backend_->work_seconds(); }
  DType compute_type() const override { return backend_->compute_type(); }
  DType cache_type() const override { return backend_->cache_type(); }
  std::size_t cache_budget() const override { return backend_->cache_budget(); }
  void prepare(const Program& program, std::int64_t most_rows) override {
    backend_->prepare(program, most_rows);
  }
  void run(Queue& queue, const Program& program, const Workspace& workspace,
           const PackedRows& batch) override {
    backend_->run(queue, program, workspace, batch);
  }
  void run(Queue& queue, const Program& program, const Workspace& workspace,
           const Step& batch) override {
    backend_->run(queue, program, workspace, batch);
  }
  void decode(Queue& queue, const Program& program, const Workspace& workspace, const Step& batch,
              const Projection& projection, const SearchRules& rules) override {
    backend_->decode(queue, program, workspace, batch, projection, rules);
  }
  void embed(Queue& queue, const Embedding& embedding, const PackedRows& rows,
             ResidualRows out) override {
    backend_->embed(queue, embedding, rows, out);
  }
  void embed(Queue& queue, const Embedding& embedding, const Step& step,
             ResidualRows out) override {
    backend_->embed(queue, embedding, step, out);
  }
  void linear(Queue& queue, Tensor x, const Linear& layer, Activation activation,
              Tensor out) override {
    backend_->linear(queue, x, layer, activation, out);
  }
  void gate(Queue& queue, Tensor x, Activation activation, Tensor out) override {
    backend_->gate(queue, x, activation, out);
  }
  void add_norm(Queue& queue, ResidualRows stream, const Addend& y, const Norm& after,
                const Norm& before, Tensor normed) override {
    backend_->add_norm(queue, stream, y, after, before, normed);
  }
  void transform_heads(Queue& queue, Tensor qkv, const PackedRows& rows,
                       const HeadTransform& transform, const Attention& attention) override {
    backend_->transform_heads(queue, qkv, rows, transform, attention);
  }
  void transform_heads(Queue& queue, Tensor qkv, const Step& step, const HeadTransform& transform,
                       const Attention& attention) override {
    backend_->transform_heads(queue, qkv, step, transform, attention);
  }
  void copy(Queue& queue, Tensor from, Tensor to) override { backend_->copy(queue, from, to); }
  void attend_self(Queue& queue, Tensor qkv, const PackedRows& rows, const Attention& attention,
                   Tensor out) override {
    backend_->attend_self(queue, qkv, rows, attention, out);
  }
  void attend_prompts(Queue& queue, Tensor queries, Tensor keys_values, const PackedRows& rows,
                      const Attention& attention, Tensor out) override {
    backend_->attend_prompts(queue, queries, keys_values, rows, attention, out);
  }
  void attend_self(Queue& queue, Tensor qkv, const Step& step, std::size_t layer,
                   const Attention& attention, Tensor out) override {
    backend_->attend_self(queue, qkv, step, layer, attention, out);
  }
  void attend_cross(Queue& queue, Tensor query, const PackedRows& rows, Tensor keys_values,
                    const Attention& attention, Tensor out) override {
    backend_->attend_cross(queue, query, rows, keys_values, attention, out);
  }
  void attend_cross(Queue& queue, Tensor query, const Step& step, std::size_t layer,
                    const Attention& attention, Tensor out) override {
    backend_->attend_cross(queue, query, step, layer, attention, out);
  }
  void align(Queue& queue, Tensor query, const PackedRows& rows, Tensor keys_values,
             const Attention& attention, const HeadSet& heads, std::int32_t* out) override {
    backend_->align(queue, query, rows, keys_values, attention, heads, out);
  }
  void store_keys(Queue& queue, Tensor keys_values, const std::int32_t* slots,
                  const std::int32_t* positions, std::span<const PagedCache> layers) override {
    backend_->store_keys(queue, keys_values, slots, positions, layers);
  }
  void start_slots(Queue& queue, const SearchRules& rules, std::span<const SlotStart> starts,
                   const SearchState& state) override {
    backend_->start_slots(queue, rules, starts, state);
  }
  std::unique_ptr<PendingRead> collect(Queue& queue, std::span<const std::int32_t> slots,
                                       const SearchState& state) override {
    return backend_->collect(queue, slots, state);
  }
  void log_probabilities(Queue& queue, Tensor hidden, const Projection& projection,
                         const std::int32_t* ids, float* out) override {
    backend_->log_probabilities(queue, hidden, projection, ids, out);
  }
  void search_step(Queue& queue, Tensor hidden, const Projection& projection,
                   const SearchRules& rules, const StepRows& rows,
                   const SearchState& state) override {
    backend_->search_step(queue, hidden, projection, rules, rows, state);
  }

 private:
  std::unique_ptr<Backend> backend_;
};

/// Behaves as late as a GPU may. It asks the caller to enqueue `ahead` steps before the outcome of
/// the first one is read, and its reads are ready only after they have been waited for. In fact
/// every call has done its work when it returns.
class LateBackend final : public UnrecordedBackend {
 public:
  LateBackend(std::unique_ptr<Backend> backend, int ahead)
      : UnrecordedBackend(std::move(backend)), ahead_(ahead) {}

  int steps_ahead() const override { return ahead_; }
  std::unique_ptr<PendingRead> read_later(Queue& queue,
                                          std::span<const std::byte> device) override {
    return std::make_unique<LateTicket>(UnrecordedBackend::read_later(queue, device));
  }

 private:
  class LateTicket final : public PendingRead {
   public:
    explicit LateTicket(std::unique_ptr<PendingRead> ticket) : ticket_(std::move(ticket)) {}
    bool ready() const override { return waited_; }
    std::span<const std::byte> wait() override {
      waited_ = true;
      return ticket_->wait();
    }

   private:
    std::unique_ptr<PendingRead> ticket_;
    bool waited_ = false;
  };
  int ahead_;
};

/// Returns backends(), each without recorded steps, and two backends that tell an outcome one and
/// three steps late.
inline std::vector<BackendUnderTest> backends_and_late_ones() {
  std::vector<BackendUnderTest> list = backends();
  for (BackendUnderTest& test : list)
    test.make = [make = test.make] { return std::make_unique<UnrecordedBackend>(make()); };
  for (const int ahead : {1, 3}) {
    list.push_back({fmt::format("late{}", ahead), [ahead] {
                      return std::make_unique<LateBackend>(make_backend({.threads = 1}), ahead);
                    }});
  }
  return list;
}

}  // namespace xlate::test
