// Backend: all that may be asked of a machine. Memory, queues, the layers of a network, one step of
// search. Letters: N packed rows, G row groups (sentences in a step), K beams, R = G·K decoding
// rows, D model width, V vocabulary, S slots, T longest target. Slot s with K beams owns K lines of
// every per-slot array.
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
#include "engine/layers.h"
#include "engine/program.h"
#include "engine/search_state.h"
#include "engine/table_update.h"
#include "engine/tensor.h"

namespace xlate {

class Workspace;

struct DeviceInfo {
  std::string kind;             // "cpu" or "cuda"
  std::string name;             // the device's
  std::string processor;        // the host's
  std::string instruction_set;  // what the loops were dispatched to
  std::string library;          // the matrix library in use
  int threads = 1;
  std::string compute_capability{}, driver{}, cuda{};  // of a GPU
  std::string slower{};  // why its fastest kernels cannot run, for people; empty where they can
};

/// Device memory; −1 where the device is the host.
struct DeviceMemory {
  std::int64_t peak_bytes = -1;     // most that was allocated at once
  std::int64_t context_bytes = -1;  // what the driver and libraries had taken before
};

/// What a queue's time goes to: encoder batches and their installation, or steps.
enum class Work : std::uint8_t { kEncode, kDecode };

struct WorkSeconds {
  double encode = 0, decode = 0;
  double busy =
      -1;  // the device did either, overlaps counted once; −1 where the device is the host
  double span = 0;  // from the first of it to the last
};

/// Memory of a backend; freed with the object. Addresses stay put.
class Buffer {
 public:
  Buffer() = default;
  /// `data` frees itself.
  Buffer(std::shared_ptr<void> data, std::size_t bytes) : data_(std::move(data)), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::move(other.data_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

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

/// Work in order. The CPU's queue runs each call at once; a GPU's is a stream.
class Queue {
 public:
  virtual ~Queue() = default;
};

/// A copy back to the host that may still be under way: the only way back from a device.
class PendingRead {
 public:
  virtual ~PendingRead() = default;
  virtual bool ready() const = 0;
  /// Waits for the copy; the bytes stay valid as long as the ticket lives.
  virtual std::span<const std::byte> wait() = 0;
};

/// Thread-compatible: one thread calls at a time. Tensors are the backend's own memory; inputs come
/// first, output last. Every call names its queue. Errors of a device are thrown as Error, at this
/// call or a later one on the same queue.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual DeviceInfo info() const = 0;
  virtual DeviceMemory memory() const { return {}; }
  /// Which special kernels the run has used so far, and where not, why: {"vocabulary": "fused",
  /// "solo": "no: width 768"}. Empty where a backend has one way only.
  virtual std::map<std::string, std::string> paths() const { return {}; }

  // Memory.
  /// Contents are undefined. Throws Error where there is not so much.
  virtual Buffer allocate(std::size_t bytes) = 0;
  /// The caller's bytes have been copied when it returns; the device sees them in the queue's
  /// order.
  virtual void upload(Queue&, std::span<const std::byte> host, void* device) = 0;
  /// table[place] = value for each change; as upload. No place comes twice.
  virtual void update_table(Queue&, std::span<const TableUpdate>, std::int32_t* table) = 0;
  virtual std::unique_ptr<PendingRead> read_later(Queue&, std::span<const std::byte> device) = 0;
  virtual std::unique_ptr<Queue> make_queue() = 0;
  /// Work given to `later` from now on starts after all that was given to `earlier` until now.
  virtual void order(Queue& earlier, Queue& later) = 0;
  /// out = host values, converted to a type of this backend.
  virtual void upload_as(Queue&, std::span<const float> host, DType type, void* device) = 0;
  /// Sets bytes to zero.
  virtual void clear(Queue&, void* device, std::size_t bytes) = 0;
  /// The type in which weights and hidden rows are kept.
  virtual DType compute_type() const = 0;
  /// Bytes that key and value caches may take.
  virtual std::size_t cache_budget() const = 0;
  /// Rows of weight matrices are allocated in multiples of this, zero where there are none: what
  /// the products like.
  virtual std::int64_t row_multiple() const { return 1; }
  /// Row groups that a step is run with where `groups` are in use: a backend that records steps
  /// needs few different sizes.
  virtual std::int64_t padded_groups(std::int64_t groups) const { return groups; }
  /// Runs a step, or up to `most` of them, until all their sentences are done. A backend may record
  /// the step at the first call with this bucket and replay it afterwards: all that changes from
  /// step to step must be device arrays at fixed addresses. Returns how many steps that are at
  /// most, 1 to `most`; caches must have room for `most`.
  virtual std::int64_t repeat(Queue&, std::int64_t groups, std::int64_t most,
                              const std::function<void()>& step) = 0;
  /// Marks where work of a kind begins and ends on a queue, to be timed there.
  virtual void begin_work(Queue&, Work) = 0;
  virtual void end_work(Queue&, Work) = 0;
  /// Of all work marked and ended so far; waits for it.
  virtual WorkSeconds work_seconds() = 0;
  /// Steps to enqueue before the first one's outcome is looked at: 0 where a step has ended when
  /// its call returns.
  virtual int steps_ahead() const = 0;

  // Programs.
  /// A backend may get ready for a program's products beside what it is asked next. Passes will
  /// have at most `most_rows` rows.
  virtual void prepare(const Program&, std::int64_t /*most_rows*/) {}
  /// Runs a program: the verbs of its operations, one after the other. A backend may do neighbours
  /// at once, with the same results. Rows of slots that are done, and of groups without a slot, are
  /// undefined.
  virtual void run(Queue&, const Program&, const Workspace&, const PackedRows&);
  virtual void run(Queue&, const Program&, const Workspace&, const Step&);
  /// A whole decoding step: runs the program, then search_step with what it comes to. A backend may
  /// do all of it at once, and then leaves the rooms as they are: only the caches and the search
  /// state tell what was done.
  virtual void decode(Queue&, const Program&, const Workspace&, const Step&, const Projection&,
                      const SearchRules&);

  // The verbs of a program. Those of a step leave alone what belongs to a slot that is done, and
  // groups without a slot.
  /// out[i] = table[ids[i]]·scale + positions[positions[i]]; out [N, D].
  virtual void embed(Queue&, const Embedding&, const PackedRows&, ResidualRows out) = 0;
  /// As embed, for the last token of each live hypothesis, at position `length` of its slot; out
  /// [R, D].
  virtual void embed(Queue&, const Embedding&, const Step&, ResidualRows out) = 0;
  /// out = activation(x·Wᵀ + b); x [N, in]; out [N, out] in the type of x, or without an activation
  /// in float32.
  virtual void linear(Queue&, Tensor x, const Linear&, Activation, Tensor out) = 0;
  /// stream = after(stream + y), in float32; both [N, D]. y is of the compute type or float32;
  /// empty, nothing is added.
  virtual void add_norm(Queue&, ResidualRows stream, Tensor y, const Norm& after) = 0;
  /// Self-attention inside each sentence of packed rows (Vaswani et al. 2017, scale 1/√(D/heads)).
  /// qkv [N, 3·D]; out [N, D].
  virtual void attend_self(Queue&, Tensor qkv, const PackedRows&, int heads, Tensor out) = 0;
  /// One step of self-attention: writes the keys and values of each row's token into the layer's
  /// own cache at position `length` of its slot and line of its beam, then attends over positions
  /// 0…length, key t of a row on the line that `ancestor` names. qkv [R, 3·D]; out [R, D].
  virtual void attend_self(Queue&, Tensor qkv, const Step&, std::size_t layer, int heads,
                           Tensor out) = 0;
  /// Attends over the source tokens of each row's slot; query [R, D]; out [R, D].
  virtual void attend_cross(Queue&, Tensor query, const Step&, std::size_t layer, int heads,
                            Tensor out) = 0;
  /// Copies keys and values of packed source tokens into the caches of their slots: keys_values [N,
  /// layers·2·D] (layer-major), token i goes to position positions[i] of slot token_slots[i]; both
  /// [N] on the device. One cache per layer, one table.
  virtual void store_cross(Queue&, Tensor keys_values, const std::int32_t* token_slots,
                           const std::int32_t* positions, std::span<const PagedCache> layers) = 0;

  // Search (docs/search.md gives the rules; engine/search.h the bookkeeping around it).
  /// Makes each listed slot hold a new sentence: one hypothesis with score 0 at the start token.
  /// slots and limits are host arrays.
  virtual void start_slots(Queue&, const SearchRules&, std::span<const std::int32_t> slots,
                           std::span<const std::int32_t> limits, const SearchState&) = 0;
  /// What tracing back the listed slots, which are done, needs: a record each (SearchRecord). May
  /// run beside other queues.
  virtual std::unique_ptr<PendingRead> collect(Queue&, std::span<const std::int32_t> slots,
                                               const SearchState&) = 0;
  /// Advances every listed slot that is not done by one token: projection of hidden [R, D],
  /// log-softmax, candidates, selection, finished lists, back-pointers and the test whether the
  /// sentence is done.
  virtual void search_step(Queue&, Tensor hidden, const Projection&, const SearchRules&,
                           const StepRows&, const SearchState&) = 0;
};

enum class Precision : std::uint8_t { kAuto, kFloat32, kFloat16, kBFloat16 };

struct BackendOptions {
  bool cuda = false;
  int device = 0;                             // number of the GPU
  Precision precision = Precision::kFloat32;  // the CPU has float32 only
  int threads = 1;                            // of the host
  double memory_share = 0.9;                  // of the GPU memory that is free, unless
  std::int64_t memory_bytes = 0;              // a bound in bytes is given
  bool one_at_a_time =
      false;  // decode one sentence at a time: a GPU may then run whole steps as one kernel
  std::int64_t fail_at_step = 0;  // a device error at this step, counted from 1; 0: none. For tests
};

/// Opens the machine asked for. Throws Error where it is not there, or its libraries cannot be
/// opened.
std::unique_ptr<Backend> make_backend(const BackendOptions&);

/// The host's processor, as the system names it.
std::string processor_name();

/// Whether this build has a CUDA backend.
bool has_cuda();

}  // namespace xlate
