// Backend: the interface to a machine that computes, with its memory, its queues, the operations of
// programs, and steps of search. engine/cpu and engine/cuda implement it.
//
// In shapes N is the number of packed rows, G of row groups (sentences in a decoding step), K of
// beams, R = G·K of rows in a decoding step, D the model width, V the size of the target
// vocabulary, S the number of slots, and T the number of tokens of the longest target. Row g·K + k
// of a decoding step is that of beam k in group g.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "engine/activation.h"
#include "engine/batch.h"
#include "engine/head_set.h"
#include "engine/layers.h"
#include "engine/program.h"
#include "engine/search_state.h"
#include "engine/table_update.h"
#include "engine/tensor.h"

namespace xlate {

class Workspace;

/// What the report says of a machine.
struct DeviceInfo {
  std::string kind;       // "cpu" or "cuda"
  std::string name;       // the device's name
  std::string processor;  // the name of the host's processor
  // The instruction set of the CPU's loops ("avx2"), or of the GPU ("sm_90").
  std::string instruction_set;
  std::string library;  // the name and version of the matrix library
  int threads = 1;      // on the host
  // Only a GPU has these three. They are versions, such as "9.0".
  std::string compute_capability{}, driver{}, cuda{};
  // A sentence for the user that says why the device's fastest kernels cannot run. It is empty if
  // they can.
  std::string slower{};
};

/// Memory of a GPU. The values are −1 where the device is the host.
struct DeviceMemory {
  std::int64_t peak_bytes = -1;  // the most that was allocated at once
  // The first is the most that may be allocated at once, and the second what is allocated now.
  std::int64_t limit_bytes = -1, used_bytes = -1;
  // What was not free when the backend was opened: the memory of the CUDA context and of other
  // processes.
  std::int64_t context_bytes = -1;
};

/// Kinds of work on a queue: encoder batches and their installation into slots, or decoding steps.
enum class Work : std::uint8_t { kEncode, kDecode };

/// Seconds of work: the device's time on a GPU, and wall-clock time where the device is the host.
struct WorkSeconds {
  double encode = 0, decode = 0;  // the sums over each kind of work
  // The time in which a GPU did work of either kind, with overlaps counted once. It is −1 where the
  // device is the host, and after an error of the device.
  double busy = -1;
  // From the beginning of a GPU's first work to the end of its last. It is 0 where `busy` is −1.
  double span = 0;
};

/// Owns memory of a backend, and frees it when the object is destroyed. The address never changes.
class Buffer {
 public:
  Buffer() = default;
  /// The deleter of `data` frees the memory.
  Buffer(std::shared_ptr<void> data, std::size_t bytes) : data_(std::move(data)), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::move(other.data_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  /// Returns the address as a pointer to T. It is null if the buffer is empty.
  template <class T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  void* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<void> data_;
  std::size_t bytes_ = 0;
};

/// A sequence of work, which is done in the order in which it was enqueued. A GPU's queue is a CUDA
/// stream. On the CPU each call has done its work when it returns.
class Queue {
 public:
  virtual ~Queue() = default;
};

/// A copy from the device to the host that may still be under way. All data come back from a device
/// in this way. A PendingRead must be destroyed before its backend.
class PendingRead {
 public:
  virtual ~PendingRead() = default;
  /// Whether wait() would return at once. Throws Error if the device has failed.
  virtual bool ready() const = 0;
  /// Waits until the copy is complete and returns the bytes, which stay valid as long as this
  /// object lives. Throws Error if the device has failed.
  virtual std::span<const std::byte> wait() = 0;
};

/// A machine that computes. Only one thread at a time may call a backend. Tensors and other
/// pointers are to the backend's own memory, unless a comment says that they are to the host's.
/// Every call that computes or copies enqueues its work on the queue that it is given, and may
/// return before the work is done. An error of the device is thrown as Error by the call that
/// causes it or by a later one.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceInfo info() const = 0;
  virtual DeviceMemory memory() const { return {}; }
  /// Returns, by purpose, whether special kernels have run so far, and why not where general
  /// kernels ran in their place: {"vocabulary": "fused", "attention": "no: 8 heads of width 96"}.
  /// It is empty for a backend without special kernels. docs/report.md lists the entries.
  virtual std::map<std::string, std::string> paths() const { return {}; }

  // Memory.
  /// Returns uninitialized memory. Throws OutOfMemory if there is too little.
  virtual Buffer allocate(std::size_t bytes) = 0;
  /// Copies bytes of the host to the device. The host's bytes may change as soon as the call
  /// returns. The device's bytes change in the order of the queue.
  virtual void upload(Queue&, std::span<const std::byte> host, void* device) = 0;
  /// Sets table[index] = value for each update, whose indices must all differ. The updates are in
  /// the host's memory, and may change as soon as the call returns.
  virtual void update_table(Queue&, std::span<const TableUpdate>, std::int32_t* table) = 0;
  /// Enqueues a copy of the device's bytes to the host.
  virtual std::unique_ptr<PendingRead> read_later(Queue&, std::span<const std::byte> device) = 0;
  /// Returns a new queue, which must be destroyed before the backend.
  virtual std::unique_ptr<Queue> make_queue() = 0;
  /// Orders two queues: what is enqueued on `later` after this call begins when everything that was
  /// enqueued on `earlier` before this call has ended.
  virtual void order(Queue& earlier, Queue& later) = 0;
  /// Converts the host's values to `type` and copies them to the device, as upload does. The CPU
  /// has float32 only.
  virtual void upload_as(Queue&, std::span<const float> host, DType type, void* device) = 0;
  /// Packs the weights [rows, columns] of a linear layer in the layout that the backend's products
  /// read. `read` writes rows [first, first + count) of them in float32 to its last argument, and
  /// may be called by several threads. Returns null, and does not call it, if products read plain
  /// weights. Throws OutOfMemory if there is too little memory.
  virtual std::shared_ptr<const PackedWeight> pack(
      std::int64_t /*rows*/, std::int64_t /*columns*/,
      const std::function<void(std::int64_t first, std::int64_t count, float*)>& /*read*/) {
    return nullptr;
  }
  /// Sets bytes on the device to zero.
  virtual void clear(Queue&, void* device, std::size_t bytes) = 0;
  /// The type of weights and hidden rows.
  virtual DType compute_type() const = 0;
  /// The type of keys and values in the caches.
  virtual DType cache_type() const { return compute_type(); }
  /// Returns how many bytes of the memory that is still free the key-value caches may take. The
  /// rest is left for search, for products, and on the CPU for everything else.
  virtual std::size_t cache_budget() const = 0;
  /// Every weight matrix must be allocated with a multiple of this number of rows, where rows
  /// behind the last row of the matrix are zero. Products of a backend may read these rows.
  virtual std::int64_t row_multiple() const { return 1; }
  /// Returns the number of row groups that a decoding step should be run with if `groups` of them
  /// are in use. It is at least `groups`. A backend that records steps rounds up, so that it
  /// records only a few different sizes.
  virtual std::int64_t padded_groups(std::int64_t groups) const { return groups; }
  /// Runs `step`, which enqueues one decoding step of `groups` row groups on the queue. A backend
  /// may record what `step` enqueues and replay it in later calls with the same queue and the same
  /// `groups`, without calling `step`. So everything that changes from step to step must be in
  /// arrays on the device at fixed addresses. One call may run up to `most` steps, until all their
  /// sentences are done, and the caches must have room for `most` steps. Returns the largest number
  /// of steps that may have been run, from 1 to `most`.
  virtual std::int64_t repeat(Queue&, std::int64_t groups, std::int64_t most,
                              const std::function<void()>& step) = 0;
  /// Marks where work of a kind begins on a queue, for the times of work_seconds().
  virtual void begin_work(Queue&, Work) = 0;
  /// Marks where the work ends that the last begin_work() of this kind began.
  virtual void end_work(Queue&, Work) = 0;
  /// Waits for all work whose end has been marked, and returns its times.
  virtual WorkSeconds work_seconds() = 0;
  /// Returns how many decoding steps the host may have enqueued, without having looked at their
  /// outcome, when it enqueues the next one. With 1 the device computes a step while the host
  /// prepares the next one. It is 0 where a step has ended when its call returns.
  virtual int steps_ahead() const = 0;

  // Programs.
  /// Says that the program will be run over batches of at most `most_rows` rows. A backend may
  /// prepare its products, beside the work of later calls.
  virtual void prepare(const Program&, std::int64_t /*most_rows*/) {}
  /// Runs a program over packed rows: calls the Backend function of each operation, one after the
  /// other. A backend may compute neighbouring operations by one kernel, with the same results.
  /// Throws Error if the program has an AttendCross and the batch no sources.
  virtual void run(Queue&, const Program&, const Workspace&, const PackedRows&);
  /// Runs a program over the rows of a decoding step. Rows of slots that are done, and of groups
  /// without a slot, are undefined afterwards. The CUDA backend throws Error if the model has no
  /// self caches.
  virtual void run(Queue&, const Program&, const Workspace&, const Step&);
  /// Runs a whole decoding step: the program, and search_step() with the program's result. A
  /// backend may compute all of it by one kernel and then leaves the workspace unchanged: only the
  /// caches and the search state are sure to show the step.
  virtual void decode(Queue&, const Program&, const Workspace&, const Step&, const Projection&,
                      const SearchRules&);

  // The functions of a program's operations. Those that take a Step leave the caches and the state
  // of slots that are done unchanged, and the output rows of such slots and of groups without a
  // slot are undefined.
  /// Computes out[i] = embedding.table[ids[i]] · scale + embedding.positions[positions[i]] in
  /// float32; out [N, D].
  virtual void embed(Queue&, const Embedding&, const PackedRows&, ResidualRows out) = 0;
  /// Computes the embedding of the last token of each live hypothesis, at the position that is the
  /// `length` of its slot plus PagedCaches::tokens_before(); out [R, D].
  virtual void embed(Queue&, const Embedding&, const Step&, ResidualRows out) = 0;
  /// Computes out = activation(x·Wᵀ + b); x [N, in], out [N, out]. The output is of the type of x.
  /// Without an activation it may also be in float32, which makes it accumulators. The CUDA backend
  /// throws Error for accumulators with an activation.
  virtual void linear(Queue&, Tensor x, const Linear&, Activation, Tensor out) = 0;
  /// Computes out = activation(first half of x) · second half of x in float32 (Shazeer 2020); x
  /// [N, 2·F], out [N, F].
  virtual void gate(Queue&, Tensor x, Activation, Tensor out) = 0;
  /// Computes stream = after(stream + y.scale · y.inside(y.rows)) and then normed = before(stream)
  /// in float32, and rounds each to its type; all are [N, D]. y.rows are of the compute type or
  /// float32, and a norm inside may replace them by its result. If they are absent, nothing is
  /// added. A norm that is absent leaves its rows as they are: without `after` the stream is the
  /// sum, and without `before` normed is absent.
  virtual void add_norm(Queue&, ResidualRows stream, const Addend& y, const Norm& after,
                        const Norm& before, Tensor normed) = 0;
  /// Applies a transform to the heads of the queries and keys of `qkv` in place, in float32, and
  /// rounds the result. A token of packed rows stands at the position positions[i].
  virtual void transform_heads(Queue&, Tensor qkv, const PackedRows&, const HeadTransform&,
                               const Attention&) = 0;
  /// Does the same in a decoding step, where a row stands at the position that embed() says.
  virtual void transform_heads(Queue&, Tensor qkv, const Step&, const HeadTransform&,
                               const Attention&) = 0;
  /// Copies rows to rows of the same shape and type.
  virtual void copy(Queue&, Tensor from, Tensor to) = 0;
  /// Computes self-attention inside each sentence of packed rows, with softmax(cap(q·kᵀ · scale) +
  /// bias)·v for each head (Vaswani et al. 2017), over the keys that a query sees (Attention).
  /// `qkv` [N, A + 2·A'] has the queries, keys and values of each row, in this order, where A is
  /// Attention::width() and A' is Attention::key_width(); out [N, A]. The CUDA backend throws Error
  /// for more than a scale and a distance bias.
  virtual void attend_self(Queue&, Tensor qkv, const PackedRows&, const Attention&, Tensor out) = 0;
  /// Computes self-attention inside each prompt of packed rows, where a row sees the keys before it
  /// and its own. The rows are those of a pass (PackedRows::first); queries [N, A], out [N, A].
  /// `keys_values` [first + N, 2·A'] has the key and then the value of each row of the batch up to
  /// the last one of the pass. They may be rounded in place to cache_type(), so that a row attends
  /// to the same numbers as in a decoding step. The result of a row does not depend on how the
  /// batch is divided into passes.
  virtual void attend_prompts(Queue&, Tensor queries, Tensor keys_values, const PackedRows&,
                              const Attention&, Tensor out) = 0;
  /// Computes self-attention of a decoding step. First it writes the key and value of each row's
  /// token into the layer's self cache, at position `length` of the row's slot and under the row's
  /// beam. Then each row attends over the tokens in the layer's shared cache, if there is one, and
  /// over the positions from 0 to `length` of the self cache. Its key of an earlier position t is
  /// the one under the beam ancestor[t] of its hypothesis. qkv [R, A + 2·A']; out [R, A].
  virtual void attend_self(Queue&, Tensor qkv, const Step&, std::size_t layer, const Attention&,
                           Tensor out) = 0;
  /// Computes cross-attention: each row attends over the source tokens of its slot, in the layer's
  /// cross cache; query [R, A], out [R, A]. It has only a scale, and as many heads of keys as of
  /// queries.
  virtual void attend_cross(Queue&, Tensor query, const Step&, std::size_t layer, const Attention&,
                            Tensor out) = 0;
  /// Computes cross-attention of a pass of packed rows: each row attends over the rows of its
  /// sentence's source (PackedRows::sources) in `keys_values` [M, 2·A]; query [N, A], out [N, A].
  /// The keys and values may be rounded in place as those of prompts, before the first pass or in
  /// it. It has only a scale, and as many heads of keys as of queries.
  virtual void attend_cross(Queue&, Tensor query, const PackedRows&, Tensor keys_values,
                            const Attention&, Tensor out) = 0;
  /// Finds, for each row of a pass, the token of its source with the largest weight in the
  /// attention that attend_cross() computes, on average over the heads of the set. Writes the
  /// token's number in its source, from 0, to out [N] on the device. The first of equal ones wins.
  /// The keys and values may be rounded in place as there.
  virtual void align(Queue&, Tensor query, const PackedRows&, Tensor keys_values, const Attention&,
                     const HeadSet&, std::int32_t* out) = 0;
  /// Copies the keys and values of N packed tokens into the cross caches or the shared ones. Each
  /// row of `keys_values` [N, layers·2·A'] has the key and then the value of each layer in turn.
  /// Token i goes to position positions[i] of slot token_slots[i], and both arrays are [N] on the
  /// device.
  /// `layers` has one cache for each layer, all with the same page table.
  virtual void store_keys(Queue&, Tensor keys_values, const std::int32_t* token_slots,
                          const std::int32_t* positions, std::span<const PagedCache> layers) = 0;

  // Search. docs/search.md has its rules, and engine/search.h the host's side of it.
  /// Starts a new sentence in each of the slots, with one hypothesis of score 0 at its start token.
  /// `starts` is in the host's memory.
  virtual void start_slots(Queue&, const SearchRules&, std::span<const SlotStart> starts,
                           const SearchState&) = 0;
  /// Enqueues a copy of a record (SearchRecord) of each of the slots, which must be done. Record i
  /// begins at byte i · SearchRecord::bytes(K, T) of the copy. `slots` is in the host's memory. The
  /// queue may be another one than that of the steps, if the step that completed the sentences has
  /// ended.
  virtual std::unique_ptr<PendingRead> collect(Queue&, std::span<const std::int32_t> slots,
                                               const SearchState&) = 0;
  /// Advances every slot of the step that is not done by one token. It projects hidden [R, D] onto
  /// the vocabulary, takes the log-softmax, selects the candidates and from them the live and
  /// finished hypotheses, writes the back-pointers, and marks sentences that are done.
  virtual void search_step(Queue&, Tensor hidden, const Projection&, const SearchRules&,
                           const StepRows&, const SearchState&) = 0;

  // Scoring.
  /// Computes out[i] = log-softmax of the logits of row i at ids[i]; hidden [N, D]; ids [N] and out
  /// [N] in float32 are on the device. Every token of the vocabulary counts.
  virtual void log_probabilities(Queue&, Tensor hidden, const Projection&, const std::int32_t* ids,
                                 float* out) = 0;
};

/// Says which type to compute in is asked for. A GPU takes float16 for kAuto, and the CPU float32.
/// On the CPU the products alone are computed in bfloat16 or int8, with sums in float32 or int32.
enum class Precision : std::uint8_t { kAuto, kFloat32, kFloat16, kBFloat16, kInt8 };

/// What make_backend() opens.
struct BackendOptions {
  bool cuda = false;  // The backend is a GPU.
  int device = 0;     // the number of the GPU, from 0
  Precision precision = Precision::kFloat32;
  int threads = 1;  // on the host
  // The process may use so many bytes of the host's memory, however much there is.
  std::int64_t host_bytes = INT64_MAX;
  // A GPU's buffers may take this share of the memory that is free when the backend is opened.
  double memory_share = 0.9;
  // If it is not 0, a GPU's buffers may take this number of bytes instead.
  std::int64_t memory_bytes = 0;
  // Sentences will be decoded one at a time, so that a GPU may run a whole step as one kernel.
  bool one_at_a_time = false;
  // For tests: a GPU pretends to fail at this decoding step, counted from 1. It never does with 0.
  std::int64_t fail_at_step = 0;
  // For tests: this allocation of memory, counted from 1, fails. None does with 0.
  std::int64_t fail_at_allocation = 0;
};

/// Opens the machine that the options name. Throws Error if it is not there, if this build has no
/// CUDA backend and one is asked for, or if the machine's libraries cannot be opened.
std::unique_ptr<Backend> make_backend(const BackendOptions&);

/// Returns the name of the host's processor, as Linux tells it, or "unknown".
std::string processor_name();

/// Returns whether this build has a CUDA backend.
bool has_cuda();

}  // namespace xlate
