// Implements memory, queues and reads for the CPU backend. All work is done when a call returns.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"
#include "engine/error.h"
#include "engine/limits.h"

namespace xlate::cpu {
namespace {

class CpuQueue final : public Queue {};

class CpuPendingRead final : public PendingRead {
 public:
  CpuPendingRead(std::unique_ptr<std::byte[]> bytes, std::size_t count)
      : bytes_(std::move(bytes)), count_(count) {}
  bool ready() const override { return true; }
  std::span<const std::byte> wait() override { return {bytes_.get(), count_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t count_;
};

}  // namespace

CpuBackend::CpuBackend(const BackendOptions& options)
    : CpuBackend(options, open_product_library()) {
  if (options.threads == 1) return;
  BackendOptions of_one = options;
  of_one.threads = 1;
  of_one.fail_at_allocation = 0;
  for (int thread = 0; thread < options.threads; ++thread) {
    of_threads_.push_back(std::unique_ptr<CpuBackend>(new CpuBackend(of_one, products_)));
    // The rows of all threads take memory at the same time.
    of_threads_.back()->ruled_rows_ /= 4;
  }
}

CpuBackend::CpuBackend(const BackendOptions& options, std::shared_ptr<ProductLibrary> products)
    : options_(options),
      products_(std::move(products)),
      pool_(options.threads),
      scratch_(static_cast<std::size_t>(pool_.threads())) {
  if (options.precision == Precision::kBFloat16 && !products_->has(DType::kBFloat16)) {
    fail(
        "--precision bf16: the processor ({}) does not compute with bfloat16; fp32 and int8 can be "
        "had",
        processor_name());
  }
}

DeviceInfo CpuBackend::info() const {
  return {.kind = "cpu",
          .name = "cpu",
          .processor = processor_name(),
          .instruction_set = instruction_set(),
          .library = products_->name(),
          .threads = pool_.threads()};
}

Buffer CpuBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  // Fresh pages of the system cost nothing until they are touched, so caches may be as large as the
  // longest sentences could need.
  void* data = ++allocations_ == options_.fail_at_allocation
                   ? MAP_FAILED
                   : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    throw OutOfMemory(
        fmt::format("out of memory: the system refused {} bytes{}", bytes, memory_limits()));
  }
  return Buffer(std::shared_ptr<void>(data, [bytes](void* memory) { munmap(memory, bytes); }),
                bytes);
}

void CpuBackend::upload(Queue&, std::span<const std::byte> host, void* device) {
  if (!host.empty()) std::memcpy(device, host.data(), host.size());
}

void CpuBackend::update_table(Queue&, std::span<const TableUpdate> changes, std::int32_t* table) {
  for (const TableUpdate& update : changes) table[update.index] = update.value;
}

void CpuBackend::upload_as(Queue& queue, std::span<const float> host, [[maybe_unused]] DType type,
                           void* device) {
  assert(type == DType::kFloat32);
  upload(queue, std::as_bytes(host), device);
}

void CpuBackend::clear(Queue&, void* device, std::size_t bytes) { std::memset(device, 0, bytes); }

std::unique_ptr<PendingRead> CpuBackend::collect(Queue&, std::span<const std::int32_t> slots,
                                                 const SearchState& state) {
  const std::int64_t stride = SearchRecord::bytes(state.beams, state.longest);
  // The records are not cleared. The history has room for the longest sentence allowed, and most of
  // it is neither written nor read.
  const std::size_t bytes = slots.size() * static_cast<std::size_t>(stride);
  auto records = std::make_unique_for_overwrite<std::byte[]>(bytes);
  std::byte* record = records.get();
  for (const std::int32_t slot : slots) {
    const SearchRecord head{state.finished_count[slot], state.length[slot],
                            state.prefix ? state.prefix_tokens[slot] : 0};
    std::memcpy(record, &head, sizeof(head));
    std::memcpy(record + sizeof(head), state.finished + slot * state.beams,
                static_cast<std::size_t>(state.beams) * sizeof(Finished));
    std::memcpy(record + sizeof(head) + static_cast<std::size_t>(state.beams) * sizeof(Finished),
                state.history + slot * state.longest * state.beams,
                static_cast<std::size_t>((head.length - 1) * state.beams) * sizeof(Node));
    record += stride;
  }
  return std::make_unique<CpuPendingRead>(std::move(records), bytes);
}

std::unique_ptr<PendingRead> CpuBackend::read_later(Queue&, std::span<const std::byte> device) {
  auto bytes = std::make_unique_for_overwrite<std::byte[]>(device.size());
  std::copy(device.begin(), device.end(), bytes.get());
  return std::make_unique<CpuPendingRead>(std::move(bytes), device.size());
}

// Work does not overlap here, because every call returns when its work is done.
void CpuBackend::begin_work(Queue&, Work) { work_start_ = std::chrono::steady_clock::now(); }

void CpuBackend::end_work(Queue&, Work work) {
  (work == Work::kEncode ? seconds_.encode : seconds_.decode) +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - work_start_).count();
}

std::unique_ptr<Queue> CpuBackend::make_queue() { return std::make_unique<CpuQueue>(); }

std::size_t CpuBackend::cache_budget() const {
  const std::int64_t memory =
      std::min<std::int64_t>(sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), options_.host_bytes);
  // If a limit is set on what the process may map, half of what is left is kept for text and
  // results.
  return static_cast<std::size_t>(std::min(memory / 4, memory_left().value_or(INT64_MAX) / 2));
}

}  // namespace xlate::cpu
