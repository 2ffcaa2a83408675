// Backends that pass everything on to another one, but for what their names say.
#pragma once

#include "tests/support.h"

namespace xlate::test {

/// Passes everything on. Steps are run and never recorded: so may call the host, as a TableModel's do.
class UnrecordedBackend : public Backend {
 public:
  explicit UnrecordedBackend(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  std::int64_t repeat(Queue&, std::int64_t, std::int64_t, const std::function<void()>& step) override {
    step();
    return 1;
  }

  int steps_ahead() const override { return backend_->steps_ahead(); }
  std::unique_ptr<Ticket> read_later(Queue& queue, std::span<const std::byte> device) override { return backend_->read_later(queue, device); }
  DeviceMemory memory() const override { return backend_->memory(); }
  DeviceInfo info() const override { return backend_->info(); }
  Buffer allocate(std::size_t bytes) override { return backend_->allocate(bytes); }
  void upload(Queue& queue, std::span<const std::byte> host, void* device) override { backend_->upload(queue, host, device); }
  void change(Queue& queue, std::span<const Change> changes, std::int32_t* table) override { backend_->change(queue, changes, table); }
  std::unique_ptr<Queue> make_queue() override { return backend_->make_queue(); }
  void order(Queue& earlier, Queue& later) override { backend_->order(earlier, later); }
  void upload_as(Queue& queue, std::span<const float> host, DType type, void* device) override { backend_->upload_as(queue, host, type, device); }
  void clear(Queue& queue, void* device, std::size_t bytes) override { backend_->clear(queue, device, bytes); }
  std::int64_t row_multiple() const override { return backend_->row_multiple(); }
  std::int64_t bucket_of(std::int64_t groups) const override { return backend_->bucket_of(groups); }
  void begin_work(Queue& queue, Work work) override { backend_->begin_work(queue, work); }
  void end_work(Queue& queue, Work work) override { backend_->end_work(queue, work); }
  WorkSeconds work_seconds() override { return backend_->work_seconds(); }
  DType compute_type() const override { return backend_->compute_type(); }
  std::size_t cache_budget() const override { return backend_->cache_budget(); }
  void embed(Queue& queue, const Embedding& embedding, const std::int32_t* ids, const std::int32_t* positions, WideRows out) override {
    backend_->embed(queue, embedding, ids, positions, out);
  }
  void embed_step(Queue& queue, const Embedding& embedding, const SearchState& state, const StepRows& rows, WideRows out) override {
    backend_->embed_step(queue, embedding, state, rows, out);
  }
  void layer_norm(Queue& queue, Tensor x, WideRows residual, const Norm& norm, WideRows out) override { backend_->layer_norm(queue, x, residual, norm, out); }
  void linear_norm(Queue& queue, Tensor x, const Linear& layer, WideRows residual, const Norm& norm, Tensor between, WideRows out) override {
    backend_->linear_norm(queue, x, layer, residual, norm, between, out);
  }
  void expect(std::span<const ExpectedLinear> linears) override { backend_->expect(linears); }
  void linear(Queue& queue, Tensor x, const Linear& layer, Activation activation, Tensor residual, Tensor out) override {
    backend_->linear(queue, x, layer, activation, residual, out);
  }
  void attend_packed(Queue& queue, Tensor qkv, std::span<const std::int32_t> host, const std::int32_t* offsets, int heads, Tensor out) override {
    backend_->attend_packed(queue, qkv, host, offsets, heads, out);
  }
  void begin_step(Queue& queue, const PagedCache& self, const PagedCache& cross, const std::int32_t* source_lengths, const SearchState& state, const StepRows& rows) override {
    backend_->begin_step(queue, self, cross, source_lengths, state, rows);
  }
  void attend_self(Queue& queue, Tensor qkv, const PagedCache& cache, const SearchState& state, const StepRows& rows, int heads, Tensor out) override {
    backend_->attend_self(queue, qkv, cache, state, rows, heads, out);
  }
  void attend_cross(Queue& queue, Tensor query, const PagedCache& cache, const std::int32_t* lengths, const StepRows& rows, int heads, Tensor out) override {
    backend_->attend_cross(queue, query, cache, lengths, rows, heads, out);
  }
  void store_cross(Queue& queue, Tensor keys_values, const std::int32_t* slots, const std::int32_t* positions, std::span<const PagedCache> layers) override {
    backend_->store_cross(queue, keys_values, slots, positions, layers);
  }
  void start_slots(Queue& queue, const SearchRules& rules, std::span<const std::int32_t> slots, std::span<const std::int32_t> limits, const SearchState& state) override {
    backend_->start_slots(queue, rules, slots, limits, state);
  }
  std::unique_ptr<Ticket> collect(Queue& queue, std::span<const std::int32_t> slots, const SearchState& state) override {
    return backend_->collect(queue, slots, state);
  }
  void search_step(Queue& queue, Tensor hidden, const Projection& projection, const SearchRules& rules, const StepRows& rows, const SearchState& state) override {
    backend_->search_step(queue, hidden, projection, rules, rows, state);
  }

 private:
  std::unique_ptr<Backend> backend_;
};

/// Answers as a GPU may: what was asked for has been done, but steps are `ahead` before their outcome is looked at, and a ticket is ready
/// once it is waited for.
class LateBackend final : public UnrecordedBackend {
 public:
  LateBackend(std::unique_ptr<Backend> backend, int ahead) : UnrecordedBackend(std::move(backend)), ahead_(ahead) {}

  int steps_ahead() const override { return ahead_; }
  std::unique_ptr<Ticket> read_later(Queue& queue, std::span<const std::byte> device) override {
    return std::make_unique<LateTicket>(UnrecordedBackend::read_later(queue, device));
  }

 private:
  class LateTicket final : public Ticket {
   public:
    explicit LateTicket(std::unique_ptr<Ticket> ticket) : ticket_(std::move(ticket)) {}
    bool ready() const override { return waited_; }
    std::span<const std::byte> wait() override {
      waited_ = true;
      return ticket_->wait();
    }

   private:
    std::unique_ptr<Ticket> ticket_;
    bool waited_ = false;
  };
  int ahead_;
};

/// backends(), none recording its steps, and ones that look back late.
inline std::vector<BackendUnderTest> backends_and_late_ones() {
  std::vector<BackendUnderTest> list = backends();
  for (BackendUnderTest& test : list) test.make = [make = test.make] { return std::make_unique<UnrecordedBackend>(make()); };
  for (const int ahead : {1, 3}) {
    list.push_back({fmt::format("late{}", ahead), [ahead] { return std::make_unique<LateBackend>(make_backend({.threads = 1}), ahead); }});
  }
  return list;
}

}  // namespace xlate::test
