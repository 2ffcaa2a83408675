#include "engine/cuda/solo/compiler.h"

#include <algorithm>
#include <utility>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "engine/error.h"
#include "engine/rooms.h"

namespace xlate::cuda {
namespace {

constexpr std::int64_t kBoxColumns = 64;
constexpr std::int64_t kNormWidth = 1024;
constexpr int kMostHeldKeys = 80;  // of a head of 64, in shared memory
constexpr int kKeyGap =
    64;  // bytes behind a key and its value: rows read together meet no bank twice
constexpr int kBooksBytes =
    1024;  // at most, of up to 8 hypotheses and 16 candidates (search/advance.cuh)

/// A step that the kernel does not have, and why.
struct Unfit {
  std::string why;
};
template <class... Args>
void require(bool fits, fmt::format_string<Args...> why, Args&&... args) {
  if (!fits) throw Unfit{fmt::format(why, std::forward<Args>(args)...)};
}

int narrow(std::int64_t n) { return static_cast<int>(n); }

bool packable(const Tensor& weight) {
  return size_of(weight.dtype) == 2 && weight.columns % kBoxColumns == 0 &&
         weight.stride % 8 == 0 && aligned(weight.data);
}

SoloOp empty_op(SoloKind kind) {
  SoloOp op{};
  op.kind = kind;
  op.next = -1;
  return op;
}

}  // namespace

std::shared_ptr<SoloStep> SoloCompiler::compile(Stream& queue, const Program& program,
                                                const Rooms& rooms, const Step& step,
                                                const Projection& projection,
                                                const RulesView& rules, int candidates) try {
  if (no_room_) return nullptr;
  rooms_ = &rooms, step_ = &step;
  program_ = {};
  ops_.clear(), weights_.clear(), places_.clear(), read_since_.clear();
  row_bytes_ = 0;
  begin(step, program.rooms()[program.out().index].columns);
  for (const Operation& operation : program.operations())
    std::visit([&](const auto& op) { add(op); }, operation);
  finish(program, projection, rules, candidates);
  SoloProgram whole = program_;
  require(lay_out(whole, narrow(whole.cross.pages_per_slot * whole.cross.page_tokens)),
          "shared memory is too small");
  auto compiled = completed(queue, whole, projection.linear.weight);
  no_room_ = !compiled;
  require(!no_room_, "no memory for its weights once more");
  return compiled;
} catch (const Unfit& unfit) {
  reason_ = unfit.why;
  return nullptr;
}

void SoloCompiler::begin(const Step& step, std::int64_t width) {
  const auto& [state, rows, caches] = step;
  require(rows.groups == 1 && rows.beams <= kSoloRows && state.beams == rows.beams &&
              width <= kNormWidth,
          "{} sentences of {} beams, width {}", rows.groups, rows.beams, width);
  require(!caches.source.empty() && !caches.own.empty(), "no keys of a source");
  program_.beams = narrow(rows.beams), program_.width = narrow(width);
  program_.state = state, program_.slots = rows.slots;
  program_.source_lengths = caches.source_lengths;
}

SoloCompiler::Place SoloCompiler::place(Room room) {
  if (const auto found = places_.find(room.index); found != places_.end()) return found->second;
  const WideRows rows = rooms_->stream(room, program_.beams);
  const std::int64_t columns = rows.rounded.columns;
  require(columns % kBoxColumns == 0, "rows of {} columns", columns);
  const auto take = [&](const Tensor& tensor) {
    if (!tensor) return SoloRows{};
    const int pitch =
        narrow(columns) * narrow(static_cast<std::int64_t>(size_of(tensor.dtype))) + kSoloGap;
    return SoloRows{std::exchange(row_bytes_, row_bytes_ + program_.beams * pitch), pitch};
  };
  const SoloRows rounded = take(rows.rounded);
  return places_[room.index] = {rounded, take(rows.rest), columns};
}

// A block may still be at an operation when another one sends it what the next one gives: that must
// not go where it reads or writes.
void SoloCompiler::append(SoloOp op, const SoloRows& out) {
  if (op.kind == SoloKind::kNorm) {
    read_since_.insert(read_since_.end(), {op.x, op.added, out});
  } else {
    const auto same = [&](const SoloRows& rows) { return rows.pitch != 0 && rows.at == out.at; };
    require(!same(op.x) && std::none_of(read_since_.begin(), read_since_.end(), same),
            "rows that are written while they are read");
    read_since_ = {op.x};
  }
  op.out = out;
  ops_.push_back(op);
}

void SoloCompiler::add(const Embed& op) {
  const auto& [table, positions, scale] = op.embedding;
  require(table.columns == program_.width, "embeddings of {} columns", table.columns);
  require(ops_.empty() && !program_.table, "an embedding behind other operations");
  require(aligned(table.data) && table.stride % 8 == 0 && aligned(positions.data) &&
              positions.stride % 4 == 0,
          "rows of embeddings that are not aligned");
  const Place out = place(op.out);
  program_.embedded = out.rows, program_.embedded_rest = out.rest;
  program_.table = table.data, program_.table_stride = table.stride;
  program_.positions = positions.as<float>(), program_.positions_stride = positions.stride;
  program_.scale = scale;
}

void SoloCompiler::add(const ApplyLinear& apply) {
  const Place x = place(apply.x), out = place(apply.out);
  const Tensor& weight = apply.layer.weight;
  require(packable(weight) && weight.columns == x.columns && weight.rows == out.columns,
          "a product of {} to {} columns", x.columns, out.columns);
  const bool sums = rooms_->rows(apply.out, program_.beams).dtype == DType::kFloat32;
  require(rooms_->rows(apply.x, program_.beams).dtype == weight.dtype &&
              !(sums && apply.activation != Activation::kNone),
          "a product of sums, or with an activation into sums");
  SoloOp op = empty_op(SoloKind::kLinear);
  op.activation = apply.activation;
  op.x = x.rows;
  op.sums = sums;
  op.in = narrow(x.columns), op.width = narrow(weight.rows);
  op.bias = apply.layer.bias.data;
  op.tiles = op.width / kSoloTileOutputs;
  op.tiles_each = (op.tiles + kSoloCluster - 1) / kSoloCluster;
  op.pass_tiles = std::min(op.tiles_each, kSoloWarps);
  op.boxes = narrow(x.columns / kBoxColumns);
  op.stage_boxes =
      op.boxes % kSoloStageBoxes == 0 &&
              op.pass_tiles * kSoloTileOutputs * 128 * kSoloStageBoxes <= kSoloStageBytes
          ? kSoloStageBoxes
          : 1;
  op.stages = op.boxes / op.stage_boxes;
  op.passes = (op.tiles_each + op.pass_tiles - 1) / op.pass_tiles;
  append(op, out.rows);
  weights_.push_back(weight);
}

void SoloCompiler::add(const AddNorm& norm) {
  require(norm.y != norm.stream, "a norm on the embeddings");
  require(rooms_->rows(norm.y, program_.beams).dtype == DType::kFloat32,
          "a norm of no product's sums");
  const Place stream = place(norm.stream), sums = place(norm.y);
  require(stream.columns == program_.width && sums.columns == program_.width &&
              aligned(norm.after.gain.data) && aligned(norm.after.bias.data),
          "a norm of {} columns", stream.columns);
  SoloOp op = empty_op(SoloKind::kNorm);
  op.x = sums.rows;
  op.added = stream.rows, op.added_rest = stream.rest, op.out_rest = stream.rest;
  op.in = op.width = program_.width;
  op.gain = norm.after.gain.as<float>(), op.shift = norm.after.bias.as<float>(),
  op.epsilon = norm.after.epsilon;
  append(op, stream.rows);
  weights_.push_back({});
}

void SoloCompiler::add(const AttendSelf& op) {
  const PagedCache& cache = step_->caches.own[op.layer];
  require(cache.lines == program_.beams, "{} lines of keys for {} beams", cache.lines,
          program_.beams);
  attend(SoloKind::kSelf, op.queries_keys_values, cache, program_.self, op.heads, op.out);
}

void SoloCompiler::add(const AttendSource& op) {
  const PagedCache& cache = step_->caches.source[op.layer];
  require(cache.lines == 1, "{} lines of keys of the source", cache.lines);
  attend(SoloKind::kCross, op.queries, cache, program_.cross, op.heads, op.out);
}

void SoloCompiler::attend(SoloKind kind, Room x, const PagedCache& cache, CacheView& view,
                          int heads, Room out) {
  const Place rows = place(x), to = place(out);
  const std::int64_t width = to.columns, head = width / heads;
  require(width == program_.width && rows.columns == (kind == SoloKind::kSelf ? 3 : 1) * width &&
              heads <= kSoloCluster && width % heads == 0 &&
              (head == 32 || head == 64 || head == 128) &&
              (program_.heads == 0 || program_.heads == heads),
          "{} heads of width {}", heads, head);
  require(aligned(cache.pages.data) && size_of(cache.pages.dtype) == 2 &&
              cache.pages.columns == 2 * width && cache.pages.stride == 2 * width &&
              cache.pages.rows <= INT32_MAX,
          "a cache of {} rows of {} columns", cache.pages.rows, cache.pages.columns);
  require(
      !view.table || (view.table == cache.table && view.pages_per_slot == cache.pages_per_slot &&
                      view.page_tokens == cache.page_tokens),
      "layers with tables of their own");
  view = {.pages = nullptr,
          .table = cache.table,
          .pages_per_slot = cache.pages_per_slot,
          .page_tokens = cache.page_tokens,
          .lines = cache.lines};
  program_.heads = heads, program_.head_step = kSoloCluster / heads;
  SoloOp op = empty_op(kind);
  op.x = rows.rows;
  op.in = narrow(rows.columns), op.width = narrow(width);
  op.pages = cache.pages.data;
  append(op, to.rows);
  weights_.push_back({});
}

void SoloCompiler::finish(const Program& program, const Projection& projection,
                          const RulesView& rules, int candidates) {
  const Tensor& weight = projection.linear.weight;
  require(program_.table && program_.heads > 0 && places_.contains(program.out().index),
          "a step without embedding or attention");
  require(packable(weight) && weight.columns == program_.width &&
              vocabulary_kernel_fits(90, program_.width, weight.rows, candidates) &&
              rules.beams == program_.beams,
          "a vocabulary of {}, {} candidates", weight.rows, candidates);
  program_.hidden = place(program.out()).rows;
  program_.count = narrow(static_cast<std::int64_t>(ops_.size()));
  program_.vocabulary_bias = projection.linear.bias ? projection.linear.bias.as<float>() : nullptr;
  program_.vocabulary = narrow(weight.rows),
  program_.tiles = narrow((weight.rows + kSoloTileIds - 1) / kSoloTileIds);
  program_.candidates = candidates;
  program_.rules = rules;
  link();
}

// What may be fetched when an operation is done: the next norm's gain, around to the next step's
// first; the next layer's keys, of self-attention not around, as the next step's lie elsewhere.
void SoloCompiler::link() {
  const auto next_of = [&](SoloKind kind, std::size_t from) {
    for (std::size_t i = from; i < ops_.size(); ++i) {
      if (ops_[i].kind == kind) return narrow(static_cast<std::int64_t>(i));
    }
    return -1;
  };
  program_.first_norm = next_of(SoloKind::kNorm, 0),
  program_.first_self = next_of(SoloKind::kSelf, 0),
  program_.first_cross = next_of(SoloKind::kCross, 0);
  const auto is_attention = [](const SoloOp& op) {
    return op.kind == SoloKind::kSelf || op.kind == SoloKind::kCross;
  };
  const auto at = [](const SoloRows& rows, const SoloRows& others) {
    return rows.pitch != 0 && rows.at == others.at;
  };
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    SoloOp& op = ops_[i];
    if (op.kind == SoloKind::kLinear) {
      op.for_heads =
          !at(program_.hidden, op.out) &&
          std::none_of(ops_.begin(), ops_.end(), [&](const SoloOp& other) {
            return (!is_attention(other) && at(other.x, op.out)) || at(other.added, op.out);
          });
      continue;
    }
    op.next = next_of(op.kind, i + 1);
    if (op.next < 0 && op.kind == SoloKind::kNorm) op.next = program_.first_norm;
    if (op.next < 0 && op.kind == SoloKind::kCross) op.next = program_.first_cross;
  }
}

// Holds as many keys in shared memory as leave the ring of stages enough.
bool SoloCompiler::lay_out(SoloProgram& program, int longest_source) {
  const SoloProgram fresh = program;
  const std::vector<SoloOp> ops = ops_;
  const int most = program.width / program.heads <= 64 ? kMostHeldKeys
                                                       : kMostHeldKeys / 2 / kTileKeys * kTileKeys;
  for (int held = most; held > 0; held -= kTileKeys) {
    if (lay_out(program, longest_source, held)) return true;
    program = fresh, ops_ = ops;
  }
  return false;
}

// What has a fixed size lies behind the ring; the ring gets what is left.
bool SoloCompiler::lay_out(SoloProgram& program, int longest_source, int held_keys) {
  SoloLayout& layout = program.layout;
  const int beams = program.beams, head = program.width / program.heads,
            entries = narrow(program.state.longest) * beams + kTileKeys;  // a whole tile at the end
  // Candidates and the sentence's books lie where self-attention's keys are.
  const int best_bytes =
      beams * program.candidates * (program.candidates + 2) * narrow(sizeof(TokenValue)) +
      kBooksBytes;
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
  for (int* at : {&layout.ops, &layout.norm, &layout.self_keys, &layout.cross_keys,
                  &layout.list_rows, &layout.list_viewers, &layout.source_rows})
    *at += ring;
  for (SoloRows* at : {&program.embedded, &program.embedded_rest, &program.hidden})
    at->at += ring + rows;
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
  for (int* at : {&layout.hidden, &layout.logits, &layout.never})
    *at += layout.word_stages * kSoloStageBytes;
  layout.bytes = std::max(layout.bytes, layout.word_stages * kSoloStageBytes + end);
  return layout.stages >= kSoloLeastStages && layout.word_stages >= kSoloLeastStages;
}

Buffer SoloCompiler::pack(Stream& queue, Tensor weight, int share_rows, int pass_rows) {
  const SoloPacking packing{.rows = narrow(weight.rows),
                            .columns = narrow(weight.columns),
                            .stride = weight.stride,
                            .share_rows = share_rows,
                            .pass_rows = pass_rows};
  Buffer packed = backend_.allocate(packing.bytes());
  pack_solo_weight(packing, weight.data, packed.data(), queue.get());
  check(cudaGetLastError());
  return packed;
}

std::shared_ptr<SoloStep> SoloCompiler::completed(Stream& queue, SoloProgram program,
                                                  Tensor vocabulary) try {
  auto step = std::make_shared<SoloStep>();
  step->clusters = clusters_;
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    SoloOp& op = ops_[i];
    if (op.kind != SoloKind::kLinear) continue;
    step->weights.push_back(pack(queue, weights_[i], op.tiles_each * kSoloTileOutputs,
                                 op.pass_tiles * kSoloTileOutputs));
    op.weight = step->weights.back().data();
  }
  step->weights.push_back(pack(queue, vocabulary, kSoloTileIds, kSoloTileIds));
  program.vocabulary_weight = step->weights.back().data();
  const auto rows = static_cast<std::size_t>(program.beams),
             parts = static_cast<std::size_t>((clusters_ - 1) * kSoloCluster * program.candidates);
  step->ops = backend_.allocate(ops_.size() * sizeof(SoloOp));
  backend_.upload(queue, std::as_bytes(std::span(ops_)), step->ops.data());
  step->hidden_rows = backend_.allocate(rows * static_cast<std::size_t>(program.width) * 2);
  step->sums = backend_.allocate(rows * static_cast<std::size_t>(program.tiles) * sizeof(float2));
  step->lists = backend_.allocate(rows * parts * sizeof(TokenValue));
  program.ops = step->ops.as<SoloOp>(), program.hidden_rows = step->hidden_rows.data(),
  program.sums = step->sums.as<float2>(), program.lists = step->lists.as<TokenValue>();
  step->program = program;
  return step;
} catch (const Error&) {
  cudaGetLastError();
  return nullptr;
}

}  // namespace xlate::cuda
