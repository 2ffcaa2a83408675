#include "engine/cuda/solo/recorder.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <utility>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/handles.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "engine/error.h"

namespace xlate::cuda {
namespace {

constexpr std::int64_t kBoxColumns = 64;
constexpr std::int64_t kNormWidth = 1024;
constexpr int kMostHeldKeys = 80;      // of a head of 64, in shared memory
constexpr int kKeyGap = 64;            // bytes behind a key and its value: rows read together meet no bank twice
constexpr int kReservedBytes = 2048;   // of shared memory, for what does not depend on the model
constexpr int kBooksBytes = 1024;      // at most, of up to 8 hypotheses and 16 candidates (search/advance.cuh)
constexpr std::size_t kMostCopied = 1024;
constexpr unsigned kLaunchNumbers = 1u << 24;

int narrow(std::int64_t n) { return static_cast<int>(n); }

template <class Body>
auto with_type(DType type, const Body& body) {
  return type == DType::kFloat16 ? body(__half{}) : body(__nv_bfloat16{});
}

bool packable(const Tensor& weight) { return size_of(weight.dtype) == 2 && weight.columns % kBoxColumns == 0 && weight.stride % 8 == 0 && aligned(weight.data); }

SoloOp empty_op(SoloKind kind) {
  SoloOp op{};
  op.kind = kind;
  op.next = -1;
  return op;
}

}  // namespace

std::unique_ptr<SoloRecorder> SoloRecorder::open(Backend& backend, int device) {
  int major = 0, minor = 0, shared = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const DType type = backend.compute_type();
  if (major != 9 || minor != 0 || size_of(type) != 2) return nullptr;
  const int bytes = shared - kReservedBytes, clusters = with_type(type, [&](auto tag) { return prepare_solo_step<decltype(tag)>(bytes); });
  if (clusters == 0) {
    cudaGetLastError();
    return nullptr;
  }
  std::unique_ptr<SoloRecorder> recorder(new SoloRecorder(backend, clusters, bytes));
  recorder->signals_ = backend.allocate(sizeof(SoloSignals));
  return recorder;
}

void SoloRecorder::begin() {
  flush();
  stepping_ = whole_ = true;
  launched_ = nullptr;
}

std::shared_ptr<SoloStep> SoloRecorder::end() {
  const bool whole = whole_ && pending_;
  flush();
  stepping_ = false;
  return whole ? std::exchange(launched_, nullptr) : nullptr;
}

void SoloRecorder::again(std::shared_ptr<SoloStep> step, int times, Queue& queue) {
  flush();
  pending_ = std::move(step);
  queue_ = &queue;
  times_ = times;
}

bool SoloRecorder::read(const void* device, void* host, std::size_t bytes, const Queue& queue) {
  if (!pending_ || &queue != queue_ || bytes % sizeof(std::int32_t) != 0 || bytes > kMostCopied) return false;
  pending_->program.copy_from = static_cast<const std::int32_t*>(device);
  pending_->program.copy_to = static_cast<std::int32_t*>(host);
  pending_->program.copy_words = narrow(static_cast<std::int64_t>(bytes / sizeof(std::int32_t)));
  launch();
  return true;
}

void SoloRecorder::flush() {
  if (pending_) return launch();
  if (!recording_) return;
  if (reason_.empty()) reason_ = "an operation that its kernel does not have";
  recording_ = whole_ = false;
  replaying_ = true;
  try {
    for (const Verb& verb : std::exchange(verbs_, {})) verb();
  } catch (...) {
    replaying_ = false;
    throw;
  }
  replaying_ = false;
}

void SoloRecorder::forget(const Queue& queue) {
  if (&queue == launched_on_) launched_on_ = nullptr;
  if (&queue != queue_) return;
  pending_ = nullptr;
  recording_ = false;
  verbs_.clear();
}

void SoloRecorder::launch() {
  const std::shared_ptr<SoloStep> step = std::exchange(pending_, nullptr);
  SoloProgram& program = step->program;
  program.launch = launches_ = (launches_ + 1) % kLaunchNumbers;
  program.times = std::exchange(times_, 1);
  const cudaStream_t stream = static_cast<Stream&>(*queue_).get();
  // Launches share their signals: one begins when another has ended.
  if (launched_on_ && launched_on_ != queue_) check(cudaDeviceSynchronize());
  launched_on_ = queue_;
  with_type(backend_.compute_type(), [&](auto tag) { run_solo_step<decltype(tag)>(program, step->clusters, stream); });
  check(cudaGetLastError());
  program.copy_from = nullptr, program.copy_to = nullptr, program.copy_words = 0;
  if (stepping_) launched_ = step;
}

bool SoloRecorder::give_up(const Queue& queue, const std::string& why) {
  reason_ = why;
  if (records(queue)) flush();
  return false;
}

const SoloRows* SoloRecorder::find(Tensor x) const {
  const auto found = places_.find(x.data);
  return found != places_.end() && found->second.columns == x.columns && x.rows == program_.beams ? &found->second.rows : nullptr;
}

const SoloRows* SoloRecorder::place(Tensor x) {
  if (x.rows != program_.beams || x.columns % kBoxColumns != 0 || !(x.dtype == backend_.compute_type() || x.dtype == DType::kInt8 || x.dtype == DType::kFloat32)) return nullptr;
  if (!places_.contains(x.data)) {
    const int pitch = narrow(x.columns) * narrow(static_cast<std::int64_t>(size_of(x.dtype))) + kSoloGap;
    places_[x.data] = {{row_bytes_, pitch}, x.columns};
    row_bytes_ += program_.beams * pitch;
  }
  return find(x);
}

bool SoloRecorder::find(const WideRows& wide, SoloRows& rounded, SoloRows& rest) const {
  const SoloRows *rows = find(wide.rounded), *rests = wide.rest ? find(wide.rest) : nullptr;
  if (!rows || (wide.rest && !rests)) return false;
  rounded = *rows;
  if (rests) rest = *rests;
  return true;
}

bool SoloRecorder::place(const WideRows& wide, SoloRows& rounded, SoloRows& rest) {
  return wide.rounded.dtype == backend_.compute_type() && place(wide.rounded) && (!wide.rest || place(wide.rest)) && find(wide, rounded, rest);
}

// A block may still be at an operation when another one sends it what the next one gives: that must not go where it reads or writes.
bool SoloRecorder::add(SoloOp op, const SoloRows& out, Verb verb) {
  if (op.kind == SoloKind::kNorm) {
    read_since_.insert(read_since_.end(), {op.x, op.added, out});
  } else {
    const auto same = [&](const SoloRows& rows) { return rows.pitch != 0 && rows.at == out.at; };
    if (same(op.x) || std::any_of(read_since_.begin(), read_since_.end(), same)) return false;
    read_since_ = {op.x};
  }
  op.out = out;
  ops_.push_back(op);
  verbs_.push_back(std::move(verb));
  return true;
}

bool SoloRecorder::embed_step(const Embedding& embedding, const SearchState& state, const StepRows& rows, WideRows out, Queue& queue, Verb verb) {
  if (replaying_ || no_room_) return false;
  flush();
  if (rows.groups != 1 || rows.beams > kSoloRows || state.beams != rows.beams || out.rounded.columns > kNormWidth || !aligned(embedding.table.data) || embedding.table.stride % 8 != 0 || !aligned(embedding.positions.data) || embedding.positions.stride % 4 != 0) {
    reason_ = fmt::format("{} sentences of {} beams, width {}", rows.groups, rows.beams, out.rounded.columns);
    return false;
  }
  program_ = {};
  program_.beams = narrow(rows.beams), program_.width = narrow(out.rounded.columns);
  ops_.clear(), weights_.clear(), verbs_.clear(), places_.clear(), read_since_.clear();
  row_bytes_ = 0;
  if (!place(out, program_.embedded, program_.embedded_rest)) {
    reason_ = fmt::format("width {}", out.rounded.columns);
    return false;
  }
  program_.table = embedding.table.data, program_.table_stride = embedding.table.stride;
  program_.positions = embedding.positions.as<float>(), program_.positions_stride = embedding.positions.stride;
  program_.scale = embedding.scale;
  program_.state = state, program_.slots = rows.slots;
  recording_ = true;
  queue_ = &queue;
  verbs_.push_back(std::move(verb));
  return true;
}

bool SoloRecorder::serves(Tensor x, const Linear& layer, std::int64_t width) const {
  return find(x) && x.dtype == backend_.compute_type() && packable(layer.weight) && layer.weight.columns == x.columns && layer.weight.rows == width;
}

SoloOp SoloRecorder::linear_op(Tensor x, const Linear& layer, Activation activation) {
  SoloOp op = empty_op(SoloKind::kLinear);
  op.activation = activation;
  op.x = *find(x);
  op.in = narrow(x.columns), op.width = narrow(layer.weight.rows);
  op.bias = layer.bias.data;
  op.tiles = op.width / kSoloTileOutputs;
  op.tiles_each = (op.tiles + kSoloCluster - 1) / kSoloCluster;
  op.pass_tiles = std::min(op.tiles_each, kSoloWarps);
  op.boxes = narrow(x.columns / kBoxColumns);
  op.stage_boxes = op.boxes % kSoloStageBoxes == 0 && op.pass_tiles * kSoloTileOutputs * 128 * kSoloStageBoxes <= kSoloStageBytes ? kSoloStageBoxes : 1;
  op.stages = op.boxes / op.stage_boxes;
  op.passes = (op.tiles_each + op.pass_tiles - 1) / op.pass_tiles;
  weights_.push_back(layer.weight);
  return op;
}

bool SoloRecorder::linear(Tensor x, const Linear& layer, Activation activation, Tensor residual, Tensor out, const Queue& queue, Verb verb) {
  if (!records(queue)) return false;
  const SoloRows* to = place(out);
  const auto why = [&] { return fmt::format("a product of {} to {} columns", x.columns, out.columns); };
  if (!to || residual || out.dtype != x.dtype || !serves(x, layer, out.columns)) return give_up(queue, why());
  return add(linear_op(x, layer, activation), *to, std::move(verb)) || give_up(queue, why());
}

// The verb stands for both operations; once the first one is added, so is the other.
bool SoloRecorder::linear_norm(Tensor x, const Linear& layer, WideRows residual, const Norm& norm, Tensor between, WideRows out, const Queue& queue, Verb verb) {
  if (!records(queue)) return false;
  SoloOp op = empty_op(SoloKind::kNorm);
  const SoloRows* sums = place(between);
  if (!sums || between.columns != program_.width || !serves(x, layer, between.columns) || !find(residual, op.added, op.added_rest) || !place(out, op.out, op.out_rest) || !aligned(norm.gain.data) ||
      !aligned(norm.bias.data)) {
    return give_up(queue, fmt::format("a product of {} columns with a norm of {}", x.columns, out.rounded.columns));
  }
  SoloOp product = linear_op(x, layer, Activation::kNone);
  product.sums = 1;
  if (!add(product, *sums, std::move(verb))) return give_up(queue, "rows that are written while they are read");
  op.x = *sums;
  op.in = op.width = program_.width;
  op.gain = norm.gain.as<float>(), op.shift = norm.bias.as<float>(), op.epsilon = norm.epsilon;
  weights_.push_back({});
  return add(op, op.out, [] {});
}

bool SoloRecorder::attend(SoloKind kind, Tensor x, const PagedCache& cache, CacheView& view, int heads, Tensor out, Verb verb) {
  const SoloRows *rows = find(x), *to = place(out);
  const std::int64_t width = out.columns, head = width / heads;
  const bool same_cache = !view.table || (view.table == cache.table && view.pages_per_slot == cache.pages_per_slot && view.page_tokens == cache.page_tokens && view.lines == cache.lines);
  if (!rows || !to || width != program_.width || x.columns != (kind == SoloKind::kSelf ? 3 : 1) * width || heads > kSoloCluster || width % heads != 0 ||
      (head != 32 && head != 64 && head != 128) || (program_.heads != 0 && program_.heads != heads) || !same_cache || !aligned(cache.pages.data) ||
      cache.pages.dtype != x.dtype || cache.pages.columns != 2 * width || cache.pages.stride != 2 * width || cache.pages.rows > INT32_MAX) {
    return false;
  }
  view = {.pages = nullptr,
          .table = cache.table,
          .pages_per_slot = cache.pages_per_slot,
          .page_tokens = cache.page_tokens,
          .lines = cache.lines};
  program_.heads = heads, program_.head_step = kSoloCluster / heads;
  SoloOp op = empty_op(kind);
  op.x = *rows;
  op.in = narrow(x.columns), op.width = narrow(width);
  op.pages = cache.pages.data;
  weights_.push_back({});
  return add(op, *to, std::move(verb));
}

bool SoloRecorder::attend_self(Tensor qkv, const PagedCache& cache, const SearchState& state, const StepRows& rows, int heads, Tensor out, const Queue& queue, Verb verb) {
  if (!records(queue)) return false;
  return (cache.lines == program_.beams && is_of_step(rows) && state.ancestor == program_.state.ancestor && attend(SoloKind::kSelf, qkv, cache, program_.self, heads, out, std::move(verb))) ||
         give_up(queue, fmt::format("{} heads of width {}", heads, out.columns / heads));
}

bool SoloRecorder::attend_cross(Tensor query, const PagedCache& cache, const std::int32_t* source_lengths, const StepRows& rows, int heads, Tensor out, const Queue& queue, Verb verb) {
  if (!records(queue)) return false;
  const bool same = !program_.source_lengths || program_.source_lengths == source_lengths;
  program_.source_lengths = source_lengths;
  return (same && cache.lines == 1 && is_of_step(rows) && attend(SoloKind::kCross, query, cache, program_.cross, heads, out, std::move(verb))) ||
         give_up(queue, fmt::format("{} heads of width {} to the source", heads, out.columns / heads));
}

// What may be fetched when an operation is done: the next norm's gain, around to the next step's first; the next layer's keys, of
// self-attention not around, as the next step's lie elsewhere.
void SoloRecorder::link() {
  const auto next_of = [&](SoloKind kind, std::size_t from) {
    for (std::size_t i = from; i < ops_.size(); ++i) {
      if (ops_[i].kind == kind) return narrow(static_cast<std::int64_t>(i));
    }
    return -1;
  };
  program_.first_norm = next_of(SoloKind::kNorm, 0), program_.first_self = next_of(SoloKind::kSelf, 0), program_.first_cross = next_of(SoloKind::kCross, 0);
  const auto is_attention = [](const SoloOp& op) { return op.kind == SoloKind::kSelf || op.kind == SoloKind::kCross; };
  const auto at = [](const SoloRows& rows, const SoloRows& others) { return rows.pitch != 0 && rows.at == others.at; };
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    SoloOp& op = ops_[i];
    if (op.kind == SoloKind::kLinear) {
      op.for_heads = !at(program_.hidden, op.out) && std::none_of(ops_.begin(), ops_.end(), [&](const SoloOp& other) {
        return (!is_attention(other) && at(other.x, op.out)) || at(other.added, op.out);
      });
      continue;
    }
    op.next = next_of(op.kind, i + 1);
    if (op.next < 0 && op.kind == SoloKind::kNorm) op.next = program_.first_norm;
    if (op.next < 0 && op.kind == SoloKind::kCross) op.next = program_.first_cross;
  }
}

// With as many keys in shared memory as leave the ring enough.
bool SoloRecorder::lay_out(SoloProgram& program, int longest_source) {
  const SoloProgram fresh = program;
  const std::vector<SoloOp> ops = ops_;
  const int most = program.width / program.heads <= 64 ? kMostHeldKeys : kMostHeldKeys / 2 / kTileKeys * kTileKeys;
  for (int held = most; held > 0; held -= kTileKeys) {
    if (lay_out(program, longest_source, held)) return true;
    program = fresh, ops_ = ops;
  }
  return false;
}

// What has a fixed size lies behind the ring; the ring gets what is left.
bool SoloRecorder::lay_out(SoloProgram& program, int longest_source, int held_keys) {
  SoloLayout& layout = program.layout;
  const int beams = program.beams, head = program.width / program.heads, entries = narrow(program.state.longest) * beams + kTileKeys;  // a whole tile at the end
  // Candidates and the sentence's books lie where self-attention's keys are.
  const int best_bytes = beams * program.candidates * (program.candidates + 2) * narrow(sizeof(TokenValue)) + kBooksBytes;
  int end = 0;
  const auto room = [&](int bytes) { return std::exchange(end, end + (bytes + 15) / 16 * 16); };
  layout.key_pitch = 2 * head * 2 + kKeyGap;
  layout.held_keys = held_keys;
  layout.ops = room(narrow(static_cast<std::int64_t>(ops_.size() * sizeof(SoloOp))));
  layout.norm = room(2 * 2 * program.width * narrow(sizeof(float)));  // of two norms in turns
  layout.self_keys = room(std::max(layout.held_keys * layout.key_pitch, best_bytes));
  layout.cross_keys = room(layout.held_keys * layout.key_pitch);
  layout.list_rows = room(entries * narrow(sizeof(std::int32_t)));
  layout.list_viewers = room(entries);
  layout.source_rows = room(longest_source * narrow(sizeof(std::int32_t)));
  const int rows = room(row_bytes_);
  for (SoloOp& op : ops_) {
    if (op.kind == SoloKind::kLinear) op.biases = room(op.tiles_each * kSoloTileOutputs * 2);
  }
  layout.stages = std::min(kSoloMostStages, (shared_bytes_ - end) / kSoloStageBytes);
  const int ring = layout.stages * kSoloStageBytes;
  layout.bytes = ring + end;
  for (int* at : {&layout.ops, &layout.norm, &layout.self_keys, &layout.cross_keys, &layout.list_rows, &layout.list_viewers, &layout.source_rows}) *at += ring;
  for (SoloRows* at : {&program.embedded, &program.embedded_rest, &program.hidden}) at->at += ring + rows;
  for (SoloOp& op : ops_) {
    op.biases += ring;
    for (SoloRows* at : {&op.x, &op.added, &op.out, &op.added_rest, &op.out_rest}) {
      if (at->pitch != 0) at->at += ring + rows;
    }
  }

  end = 0;
  const int blocks = (clusters_ - 1) * kSoloCluster;
  layout.share_tiles = (program.tiles + blocks - 1) / blocks;
  layout.hidden = room(beams * (program.width * 2 + kSoloGap));
  layout.logits = room(beams * layout.share_tiles * kSoloTileIds * narrow(sizeof(float)));
  layout.never = room(layout.share_tiles * kSoloTileIds / 8);
  layout.word_stages = std::min(kSoloMostStages, (shared_bytes_ - end) / kSoloStageBytes);
  for (int* at : {&layout.hidden, &layout.logits, &layout.never}) *at += layout.word_stages * kSoloStageBytes;
  layout.bytes = std::max(layout.bytes, layout.word_stages * kSoloStageBytes + end);
  return layout.stages >= kSoloLeastStages && layout.word_stages >= kSoloLeastStages;
}

Buffer SoloRecorder::pack(Tensor weight, int share_rows, int pass_rows) {
  const SoloPacking packing{.rows = narrow(weight.rows), .columns = narrow(weight.columns), .stride = weight.stride, .share_rows = share_rows, .pass_rows = pass_rows};
  Buffer packed = backend_.allocate(packing.bytes());
  pack_solo_weight(packing, weight.data, packed.data(), static_cast<Stream&>(*queue_).get());
  check(cudaGetLastError());
  return packed;
}

std::shared_ptr<SoloStep> SoloRecorder::completed(SoloProgram program, Tensor vocabulary) try {
  auto step = std::make_shared<SoloStep>();
  step->clusters = clusters_;
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    SoloOp& op = ops_[i];
    if (op.kind != SoloKind::kLinear) continue;
    step->weights.push_back(pack(weights_[i], op.tiles_each * kSoloTileOutputs, op.pass_tiles * kSoloTileOutputs));
    op.weight = step->weights.back().data();
  }
  step->weights.push_back(pack(vocabulary, kSoloTileIds, kSoloTileIds));
  program.vocabulary_weight = step->weights.back().data();
  const auto rows = static_cast<std::size_t>(program.beams), parts = static_cast<std::size_t>((clusters_ - 1) * kSoloCluster * program.candidates);
  step->ops = backend_.allocate(ops_.size() * sizeof(SoloOp));
  backend_.upload(*queue_, std::as_bytes(std::span(ops_)), step->ops.data());
  step->hidden_rows = backend_.allocate(rows * static_cast<std::size_t>(program.width) * 2);
  step->sums = backend_.allocate(rows * static_cast<std::size_t>(program.tiles) * sizeof(float2));
  step->lists = backend_.allocate(rows * parts * sizeof(TokenValue));
  program.ops = step->ops.as<SoloOp>(), program.hidden_rows = step->hidden_rows.data(), program.sums = step->sums.as<float2>(), program.lists = step->lists.as<TokenValue>();
  step->program = program;
  return step;
} catch (const Error&) {
  cudaGetLastError();
  return nullptr;
}

bool SoloRecorder::search_step(Tensor hidden, const Projection& projection, const RulesView& rules, int candidates, const StepRows& step_rows, const SearchState& state, const Queue& queue) {
  if (!records(queue)) return false;
  const SoloRows* rows = find(hidden);
  const Tensor& weight = projection.linear.weight;
  if (!rows || program_.heads == 0 || !packable(weight) || weight.columns != program_.width || !vocabulary_kernel_fits(90, program_.width, weight.rows, candidates) ||
      rules.beams != program_.beams || !is_of_step(step_rows) || state.token != program_.state.token) {
    return give_up(queue, fmt::format("a vocabulary of {}, {} candidates", weight.rows, candidates));
  }
  program_.hidden = *rows;
  program_.count = narrow(static_cast<std::int64_t>(ops_.size()));
  program_.vocabulary_bias = projection.linear.bias ? projection.linear.bias.as<float>() : nullptr;
  program_.vocabulary = narrow(weight.rows), program_.tiles = narrow((weight.rows + kSoloTileIds - 1) / kSoloTileIds);
  program_.candidates = candidates;
  program_.rules = rules;
  program_.signals = signals_.as<SoloSignals>();
  link();
  SoloProgram program = program_;
  if (!lay_out(program, narrow(program_.cross.pages_per_slot * program_.cross.page_tokens))) {
    return give_up(queue, "shared memory is too small");
  }
  recording_ = false;  // uploads flush
  pending_ = completed(program, weight);
  no_room_ = !pending_;
  recording_ = no_room_;
  if (no_room_) return give_up(queue, "no memory for its weights once more");
  verbs_.clear();
  times_ = 1;
  return true;
}

}  // namespace xlate::cuda
