// Implements CudaBackend: the device and its memory, copies, and which kernel serves which
// operation. Products are in products/linear.cpp, attention in attention/attention.cpp, programs in
// programs.cpp and replayed steps in repeat.cpp.
#include "engine/cuda/cuda_backend.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "engine/cuda/embedding/embedding.h"
#include "engine/cuda/memory/memory.h"
#include "engine/cuda/norms/norms.h"
#include "engine/cuda/products/tensor_map.h"
#include "engine/cuda/search/search.h"
#include "engine/cuda/tensors.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "engine/error.h"

namespace xlate::cuda {
namespace {

constexpr std::size_t kUploadChunk = std::size_t{4} << 20;
// A kernel fetches up to this many bytes faster than the copy engine, which takes some 7 µs to
// begin after a kernel. The next kernel takes as long to begin after the copy engine.
constexpr std::size_t kKernelCopyBytes = std::size_t{64} << 10;
// A program runs with every driver for the major version of CUDA that it was built with.
constexpr int kOldestDriver = CUDART_VERSION / 1000 * 1000;
// The special kernels are made for compute capability 9.0.
constexpr int kFastCapability = 90;
// Logits are computed for this many rows at a time, which bounds their memory. They take 65.8 MB
// for a vocabulary of 32,128 ids. The L2 cache of an H200 has 50 MB, so that a part of them is
// still there when the selection reads them.
constexpr std::int64_t kLogitRows = 512;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Returns which driver is needed, and why.
std::string expected_driver() {
  // NVIDIA's drivers have their own versions, of which these began CUDA 12 and 13.
  const char* release = kOldestDriver == 12000   ? " (release 525)"
                        : kOldestDriver == 13000 ? " (release 580)"
                                                 : "";
  return fmt::format("{} or newer{}, since xlate was built with CUDA {}",
                     version_text(kOldestDriver), release, version_text(CUDART_VERSION));
}

cudaStream_t stream_of(Queue& queue) { return static_cast<Stream&>(queue).get(); }

// `ids` and `token_positions` are null for a decoding step, whose kernel finds them in the search
// state.
template <class T>
EmbedArgs<T> embed_args(const Embedding& embedding, const std::int32_t* ids,
                        const std::int32_t* token_positions, const ResidualRows& out) {
  return {.table = data_of<T>(embedding.table),
          .positions = data_of<float>(embedding.positions),
          .ids = ids,
          .token_positions = token_positions,
          .out = residual_view<T>(out),
          .rows = out.rounded.rows,
          .width = out.rounded.columns,
          .table_stride = embedding.table.stride,
          .positions_stride = embedding.positions.stride,
          .scale = embedding.scale};
}

}  // namespace

CudaBackend::CudaBackend(const BackendOptions& options) : options_(options) {
  type_ = options.precision == Precision::kFloat32    ? DType::kFloat32
          : options.precision == Precision::kBFloat16 ? DType::kBFloat16
                                                      : DType::kFloat16;
  open_device();
  pinned_ = std::make_unique<PinnedPool>();
  gemm_ = std::make_unique<Gemm>();
  prepare_library();
  order_event_ = std::make_unique<Event>();
  clock_ = std::make_unique<WorkClock>();
  if (options.one_at_a_time) solo_ = SoloLauncher::open(*this, options.device);
}

CudaBackend::~CudaBackend() { cudaDeviceSynchronize(); }

// Returns what keeps all special kernels from running: they are made for 16-bit types on compute
// capability 9.0. The string is empty if nothing does.
std::string CudaBackend::general_reason() const {
  if (capability_ != kFastCapability)
    return fmt::format("compute capability {}.{}", capability_ / 10, capability_ % 10);
  return size_of(type_) == 2 ? "" : name_of(type_);
}

// Returns the stream of a queue for any work but a solo step. If a solo step is waiting, it is
// launched first.
cudaStream_t CudaBackend::flushed_stream(Queue& queue) {
  if (solo_) solo_->flush();
  return stream_of(queue);
}

void CudaBackend::open_device() {
  int driver = 0, devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaDriverGetVersion(&driver);
  if (driver == 0) fail("no NVIDIA driver found, expected one for CUDA {}", expected_driver());
  if (status == cudaErrorInsufficientDriver) {
    fail(
        "the NVIDIA driver is for CUDA {}, expected {}; on GPUs for data centres NVIDIA's package "
        "cuda-compat-{}-{} serves older drivers, too",
        version_text(driver), expected_driver(), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && devices == 0))
    fail("no NVIDIA GPU found, expected at least one");
  check(status);
  if (options_.device >= devices)
    fail("no GPU {}: {} found, numbered from 0", options_.device, devices);
  check(cudaSetDevice(options_.device));
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total));
  context_bytes_ = static_cast<std::int64_t>(total - free);
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, options_.device));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, options_.device));
  capability_ = 10 * major + minor;
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, options_.device));
  memory_usage_->limit =
      options_.memory_bytes > 0
          ? options_.memory_bytes
          : static_cast<std::int64_t>(options_.memory_share * static_cast<double>(free));
}

DeviceInfo CudaBackend::info() const {
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  check(cudaGetDeviceProperties(&properties, options_.device));
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return {.kind = "cuda",
          .name = properties.name,
          .processor = processor_name(),
          .instruction_set = fmt::format("sm_{}{}", properties.major, properties.minor),
          .library = gemm_->name(),
          .threads = options_.threads,
          .compute_capability = fmt::format("{}.{}", properties.major, properties.minor),
          .driver = version_text(driver),
          .cuda = version_text(runtime),
          .slower = capability_ == kFastCapability
                        ? ""
                        : fmt::format("{}, compute capability {}.{}: the fastest kernels are made "
                                      "for {}.{}, general ones run in their place",
                                      properties.name, properties.major, properties.minor,
                                      kFastCapability / 10, kFastCapability % 10)};
}

DeviceMemory CudaBackend::memory() const {
  return {.peak_bytes = memory_usage_->peak,
          .limit_bytes = memory_usage_->limit,
          .used_bytes = memory_usage_->used,
          .context_bytes = context_bytes_};
}

Buffer CudaBackend::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  const auto size = static_cast<std::int64_t>(bytes);
  if (memory_usage_->used + size > memory_usage_->limit) {
    throw OutOfMemory(
        fmt::format("out of GPU memory: {} bytes more than the {} taken, expected at most {} in "
                    "all (--gpu-memory)",
                    size, memory_usage_->used, memory_usage_->limit));
  }
  if (++allocations_ == options_.fail_at_allocation) check(cudaErrorMemoryAllocation);
  void* data = nullptr;
  check(cudaMalloc(&data, bytes));
  // The memory is cleared, because kernels also compute the rows of empty groups. These rows do not
  // affect others.
  check(cudaMemset(data, 0, bytes));
  // The backend's streams do not wait for the default stream.
  check(cudaStreamSynchronize(nullptr));
  memory_usage_->used += size;
  memory_usage_->peak = std::max(memory_usage_->peak, memory_usage_->used);
  return Buffer(std::shared_ptr<void>(data,
                                      [ledger = memory_usage_, size](void* memory) {
                                        cudaFree(memory);
                                        ledger->used -= size;
                                      }),
                bytes);
}

std::size_t CudaBackend::cache_budget() const {
  // The fifth that remains is for what search and the products will still allocate.
  return static_cast<std::size_t>(
      std::max<std::int64_t>(0, (memory_usage_->limit - memory_usage_->used) / 5 * 4));
}

void CudaBackend::upload(Queue& queue, std::span<const std::byte> host, void* device) {
  for (std::size_t first = 0; first < host.size(); first += kUploadChunk) {
    const std::size_t bytes = std::min(kUploadChunk, host.size() - first);
    auto block = pinned_->take(bytes);
    std::memcpy(block->data, host.data() + first, bytes);
    void* to = static_cast<char*>(device) + first;
    if (host.size() > kKernelCopyBytes ||
        !copy_from_host(block->data, to, bytes, flushed_stream(queue))) {
      check(cudaMemcpyAsync(to, block->data, bytes, cudaMemcpyHostToDevice, flushed_stream(queue)));
    }
    check(cudaGetLastError());
    check(cudaEventRecord(block->event.get(), flushed_stream(queue)));
    pinned_->give_back(std::move(block));
  }
}

void CudaBackend::update_table(Queue& queue, std::span<const TableUpdate> changes,
                               std::int32_t* table) {
  if (changes.empty()) return;
  auto block = pinned_->take(changes.size_bytes());
  std::memcpy(block->data, changes.data(), changes.size_bytes());
  xlate::cuda::update_table(reinterpret_cast<const TableUpdate*>(block->data), std::ssize(changes),
                            table, flushed_stream(queue));
  check(cudaGetLastError());
  check(cudaEventRecord(block->event.get(), flushed_stream(queue)));
  pinned_->give_back(std::move(block));
}

void CudaBackend::upload_as(Queue& queue, std::span<const float> host, DType type, void* device) {
  if (type == DType::kFloat32) return upload(queue, std::as_bytes(host), device);
  if (converted_.bytes() < host.size_bytes()) {
    check(cudaDeviceSynchronize());
    converted_ = allocate(host.size_bytes());
  }
  upload(queue, std::as_bytes(host), converted_.data());
  with_type(type, [&](auto tag) {
    convert(converted_.as<float>(), static_cast<decltype(tag)*>(device),
            static_cast<std::int64_t>(host.size()), flushed_stream(queue));
  });
}

void CudaBackend::clear(Queue& queue, void* device, std::size_t bytes) {
  check(cudaMemsetAsync(device, 0, bytes, flushed_stream(queue)));
}

std::unique_ptr<PendingRead> CudaBackend::read_later(Queue& queue,
                                                     std::span<const std::byte> device) {
  auto block = pinned_->take(device.size());
  if (!solo_ ||
      !solo_->read(device.data(), block->data, device.size(), static_cast<Stream&>(queue))) {
    check(cudaMemcpyAsync(block->data, device.data(), device.size(), cudaMemcpyDeviceToHost,
                          flushed_stream(queue)));
  }
  check(cudaEventRecord(block->event.get(), flushed_stream(queue)));
  return std::make_unique<CudaPendingRead>(*pinned_, std::move(block), device.size());
}

std::unique_ptr<Queue> CudaBackend::make_queue() {
  auto queue = std::make_unique<Stream>();
  if (solo_) {
    queue->at_end([this, ended = queue.get()] { solo_->forget(*ended); });
  }
  return queue;
}

void CudaBackend::order(Queue& earlier, Queue& later) {
  check(cudaEventRecord(order_event_->get(), flushed_stream(earlier)));
  check(cudaStreamWaitEvent(flushed_stream(later), order_event_->get()));
}

void CudaBackend::begin_work(Queue& queue, Work work) {
  clock_->begin(flushed_stream(queue), work);
}
void CudaBackend::end_work(Queue& queue, Work work) { clock_->end(flushed_stream(queue), work); }

WorkSeconds CudaBackend::work_seconds() {
  try {
    return clock_->read();
  } catch (const Error&) {
    // The device has failed, and the report says that there are no times.
    return {};
  }
}

void CudaBackend::embed(Queue& queue, const Embedding& embedding, const PackedRows& rows,
                        ResidualRows out) {
  with_type(out.rounded.dtype, [&](auto tag) {
    using T = decltype(tag);
    xlate::cuda::embed<T>(embed_args<T>(embedding, rows.ids, rows.positions, out),
                          flushed_stream(queue));
  });
}

void CudaBackend::embed(Queue& queue, const Embedding& embedding, const Step& step,
                        ResidualRows out) {
  with_type(out.rounded.dtype, [&](auto tag) {
    using T = decltype(tag);
    xlate::cuda::embed_step<T>(embed_args<T>(embedding, nullptr, nullptr, out), step.state,
                               step.rows, step.caches.tokens_before(), flushed_stream(queue));
  });
}

void CudaBackend::copy(Queue& queue, Tensor from, Tensor to) {
  if (from.rows == 0) return;
  const std::size_t size = size_of(from.dtype);
  check(cudaMemcpy2DAsync(
      to.data, static_cast<std::size_t>(to.stride) * size, from.data,
      static_cast<std::size_t>(from.stride) * size, static_cast<std::size_t>(from.columns) * size,
      static_cast<std::size_t>(from.rows), cudaMemcpyDeviceToDevice, flushed_stream(queue)));
}

void CudaBackend::grow(Buffer& buffer, std::int64_t bytes) {
  if (buffer.bytes() >= static_cast<std::size_t>(bytes)) return;
  // Steps of another Runner may still read the smaller buffer.
  check(cudaDeviceSynchronize());
  buffer = {};
  buffer = allocate(static_cast<std::size_t>(bytes));
}

template <class T>
T* CudaBackend::scratch_list(Queue& queue, std::span<const T> host, Buffer& device) {
  if (device.bytes() < host.size_bytes()) {
    if (solo_) solo_->flush();
    // Work on the device may still read the smaller buffer.
    check(cudaDeviceSynchronize());
    device = allocate(std::bit_ceil(std::max<std::size_t>(host.size_bytes(), 4096)));
  }
  upload(queue, std::as_bytes(host), device.data());
  return device.as<T>();
}

RulesView CudaBackend::view_of(Queue& queue, const SearchRules& rules) {
  std::vector<std::int32_t> ids = rules.never_chosen;
  if (rules.ends.size() > 1) ids.insert(ids.end(), rules.ends.begin() + 1, rules.ends.end());
  if (ids != rule_ids_host_) {
    rule_ids_host_ = std::move(ids);
    scratch_list<std::int32_t>(queue, rule_ids_host_, rule_ids_);
  }
  const auto never_chosen_count = static_cast<int>(rules.never_chosen.size());
  return {.beams = rules.beams,
          .beam_groups = rules.beam_groups,
          .diversity = rules.diversity,
          .length_penalty = rules.length_penalty,
          .early_stopping = rules.early_stopping,
          .start = rules.start,
          .end = rules.ends.empty() ? -1 : rules.ends.front(),
          .forced_end = rules.forced_end,
          // What may not be chosen is left out before a draw.
          .renormalize = rules.renormalize || rules.sampling,
          .never_chosen = rule_ids_.as<std::int32_t>(),
          .never_chosen_count = never_chosen_count,
          .other_ends = rule_ids_.as<std::int32_t>() + never_chosen_count,
          .other_ends_count = std::max(0, static_cast<int>(rules.ends.size()) - 1),
          .min_length = rules.min_length,
          .no_repeat_ngram = rules.no_repeat_ngram,
          .repetition_penalty = rules.repetition_penalty,
          .has_row_rules = rules.has_row_rules(),
          .samples = rules.sampling.has_value(),
          .sampling = rules.sampling.value_or(Sampling())};
}

void CudaBackend::start_slots(Queue& queue, const SearchRules& rules,
                              std::span<const SlotStart> starts, const SearchState& state) {
  const RulesView view = view_of(queue, rules);
  const SlotStart* device = scratch_list<SlotStart>(queue, starts, started_);
  xlate::cuda::start_slots(view, device, std::ssize(starts), state, flushed_stream(queue));
}

// Finds the best candidates of each row without writing the logits to memory. Returns false if
// there is no kernel for these shapes, or if row rules need the logits in memory.
bool CudaBackend::find_best_fused(Queue& queue, Tensor hidden, const Projection& projection,
                                  const RulesView& rules, const RowCandidates& best,
                                  std::int64_t most_rows) {
  const Tensor& weight = projection.linear.weight;
  if (rules.has_row_rules || projection.softcap != 0 || !has_tensor_map(hidden) ||
      !has_tensor_map(weight) ||
      !vocabulary_kernel_fits(capability_, hidden.columns, weight.rows, best.count)) {
    paths_.slow(KernelPaths::Of::kVocabulary, [&] {
      const std::string reason = general_reason();
      return !reason.empty()       ? reason
             : rules.samples       ? "draws of tokens"
             : rules.has_row_rules ? "rules of search"
             : projection.softcap != 0
                 ? "a softcap of logits"
                 : fmt::format("width {}, {} candidates", hidden.columns, best.count);
    });
    return false;
  }
  paths_.fast(KernelPaths::Of::kVocabulary);
  grow(partials_,
       static_cast<std::int64_t>(vocabulary_scratch_bytes(most_rows, weight.rows, best.count)));
  const VocabularyArgs args{
      .hidden = tensor_map(hidden),
      .weight = tensor_map(weight),
      .bias = projection.linear.bias ? data_of<float>(projection.linear.bias) : nullptr,
      .rows = hidden.rows,
      .width = hidden.columns,
      .vocabulary = weight.rows,
      .scratch = partials_.data()};
  if (hidden.dtype == DType::kFloat16)
    project_rows<__half>(args, rules, best, flushed_stream(queue));
  else
    project_rows<__nv_bfloat16>(args, rules, best, flushed_stream(queue));
  return true;
}

// Computes logits of the rows, kLogitRows at a time, and calls use(first, logits, bias). The
// logits have their bias already where `bias` is null.
template <class Use>
void CudaBackend::with_logits(Queue& queue, Tensor hidden, const Projection& projection,
                              const Use& use) {
  Tensor weight = projection.linear.weight;
  const std::int64_t vocabulary = weight.rows;
  // Weights has allocated this many rows.
  weight.rows = (vocabulary + row_multiple() - 1) / row_multiple() * row_multiple();
  grow(logits_, kLogitRows * weight.rows * static_cast<std::int64_t>(sizeof(float)));
  const float* biases = projection.linear.bias ? data_of<float>(projection.linear.bias) : nullptr;
  for (std::int64_t first = 0; first < hidden.rows; first += kLogitRows) {
    const std::int64_t rows = std::min(kLogitRows, hidden.rows - first);
    const Tensor logits{logits_.data(), DType::kFloat32, rows, weight.rows, weight.rows};
    gemm_->run(
        {.x = hidden.row_range(first, rows), .weight = weight, .bias = nullptr, .out = logits},
        flushed_stream(queue));
    // A softcap is applied behind the bias, so whatever reads capped logits adds none.
    if (projection.softcap != 0)
      cap_logits(logits_.as<float>(), weight.rows, vocabulary, biases, projection.softcap, rows,
                 flushed_stream(queue));
    use(first, logits, projection.softcap != 0 ? nullptr : biases);
  }
}

// Finds the best candidates of each row by a product and a selection.
void CudaBackend::find_best(Queue& queue, Tensor hidden, const Projection& projection,
                            const RulesView& rules, const StepRows& step_rows,
                            const SearchState& state, const RowCandidates& best) {
  const std::int64_t vocabulary = projection.linear.weight.rows;
  if (rules.has_row_rules)
    grow(row_ids_, kLogitRows * (state.longest + state.longest_before) *
                       static_cast<std::int64_t>(sizeof(std::int32_t)));
  with_logits(
      queue, hidden, projection, [&](std::int64_t first, const Tensor& logits, const float* bias) {
        if (rules.has_row_rules) {
          const RowRules row_rules{step_rows, state, row_ids_.as<std::int32_t>()};
          apply_row_rules(logits_.as<float>(), logits.stride, vocabulary, bias, rules, row_rules,
                          first, logits.rows, flushed_stream(queue));
        }
        if (rules.samples)
          return sample_rows(logits_.as<float>(), logits.stride, vocabulary, rules.sampling,
                             step_rows, state, first, logits.rows, best, flushed_stream(queue));
        select_rows(logits_.as<float>(), logits.stride, vocabulary,
                    rules.has_row_rules ? nullptr : bias, rules, first, logits.rows, best,
                    flushed_stream(queue));
      });
}

void CudaBackend::log_probabilities(Queue& queue, Tensor hidden, const Projection& projection,
                                    const std::int32_t* ids, float* out) {
  with_logits(
      queue, hidden, projection, [&](std::int64_t first, const Tensor& logits, const float* bias) {
        pick_log_probabilities(logits_.as<float>(), logits.stride, projection.linear.weight.rows,
                               bias, ids + first, logits.rows, out + first, flushed_stream(queue));
      });
}

void CudaBackend::search_step(Queue& queue, Tensor hidden, const Projection& projection,
                              const SearchRules& rules, const StepRows& rows,
                              const SearchState& state) {
  const int count = rules.candidates();
  const RulesView view = view_of(queue, rules);
  const std::int64_t most_rows = state.slots * state.beams;
  grow(candidate_values_, most_rows * count * static_cast<std::int64_t>(sizeof(float)));
  grow(candidate_tokens_, most_rows * count * static_cast<std::int64_t>(sizeof(std::int32_t)));
  const RowCandidates best{candidate_values_.as<float>(), candidate_tokens_.as<std::int32_t>(),
                           count};
  if (!find_best_fused(queue, hidden, projection, view, best, most_rows))
    find_best(queue, hidden, projection, view, rows, state, best);
  const auto advance = rules.beam_groups > 1 ? advance_groups : advance_slots;
  advance(view, best, rows, state, flushed_stream(queue));
  check(cudaGetLastError());
}

std::unique_ptr<PendingRead> CudaBackend::collect(Queue& queue, std::span<const std::int32_t> slots,
                                                  const SearchState& state) {
  const std::int32_t* device = scratch_list<std::int32_t>(queue, slots, collected_);
  const std::int64_t stride = SearchRecord::bytes(state.beams, state.longest);
  const std::size_t bytes = slots.size() * static_cast<std::size_t>(stride);
  // The kernel writes the records directly to the host's memory, because only a few of their many
  // bytes are in use.
  auto block = pinned_->take(bytes);
  collect_slots(device, static_cast<std::int64_t>(slots.size()), state, block->data, stride,
                flushed_stream(queue));
  check(cudaGetLastError());
  check(cudaEventRecord(block->event.get(), flushed_stream(queue)));
  return std::make_unique<CudaPendingRead>(*pinned_, std::move(block), bytes);
}

}  // namespace xlate::cuda
