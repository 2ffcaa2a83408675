// This file compiles a program for the solo kernel (compiler.h).
#include "engine/cuda/solo/compiler.h"

#include <algorithm>
#include <utility>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/tensors.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "engine/error.h"
#include "engine/workspace.h"

namespace xlate::cuda {
namespace {

// A box of a packed weight has this many columns.
constexpr std::int64_t kBoxColumns = 64;
// The kernel's norms support rows of at most this many columns (kSoloNormVectors).
constexpr std::int64_t kNormWidth = 1024;
// A block holds at most this many keys of a head of 64 columns in shared memory.
constexpr int kMostHeldKeys = 80;
// This many bytes lie behind a key and its value, so that reading several of them at once meets no
// bank conflicts.
constexpr int kKeyGap = 64;
// This is enough for the SlotState (search/advance.cuh) of 8 hypotheses and 16 candidates.
constexpr int kSlotStateBytes = 1024;

/// This exception says why the kernel does not support a step.
struct Unfit {
  std::string why;
};
// Throws Unfit if `fits` is false.
template <class... Args>
void require(bool fits, fmt::format_string<Args...> why, Args&&... args) {
  if (!fits) throw Unfit{fmt::format(why, std::forward<Args>(args)...)};
}

int narrow(std::int64_t n) { return static_cast<int>(n); }

// Returns whether pack_solo_weight supports a weight.
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

std::shared_ptr<CompiledStep> SoloCompiler::compile(Stream& queue, const Program& program,
                                                    const Workspace& workspace, const Step& step,
                                                    const Projection& projection,
                                                    const RulesView& rules, int candidates) try {
  if (no_room_) return nullptr;
  workspace_ = &workspace, step_ = &step;
  args_ = {};
  ops_.clear(), weights_.clear(), places_.clear(), rows_in_use_.clear();
  row_bytes_ = 0;
  begin(step, program.tensors()[program.out().index].columns);
  for (const Operation& operation : program.operations())
    std::visit([&](const auto& op) { add(op); }, operation);
  finish(program, projection, rules, candidates);
  SoloArgs whole = args_;
  require(lay_out(whole, narrow(whole.cross.pages_per_slot * whole.cross.page_tokens)),
          "shared memory is too small");
  auto compiled = completed(queue, whole, projection.linear.weight);
  no_room_ = !compiled;
  require(!no_room_, "too little memory for a second copy of its weights");
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
  require(!caches.cross.empty() && !caches.self.empty(), "no keys of a source");
  args_.beams = narrow(rows.beams), args_.width = narrow(width);
  args_.state = state, args_.slots = rows.slots;
  args_.source_lengths = caches.source_lengths;
}

SoloCompiler::Place SoloCompiler::place(TensorId id) {
  if (const auto found = places_.find(id.index); found != places_.end()) return found->second;
  const ResidualRows rows = workspace_->stream(id, args_.beams);
  const std::int64_t columns = rows.rounded.columns;
  require(columns % kBoxColumns == 0, "rows of {} columns", columns);
  const auto take = [&](const Tensor& tensor) {
    if (!tensor) return SoloRows{};
    const int pitch =
        narrow(columns) * narrow(static_cast<std::int64_t>(size_of(tensor.dtype))) + kSoloGap;
    return SoloRows{std::exchange(row_bytes_, row_bytes_ + args_.beams * pitch), pitch};
  };
  const SoloRows rounded = take(rows.rounded);
  return places_[id.index] = {rounded, take(rows.low_bits), columns};
}

// Appends an operation that writes `out`. When another block sends rows of this operation, a slower
// block may still be at the last operation that had an exchange, or at a norm behind it. That block
// may also read x of this operation. The rows that are sent must not overwrite any of these rows. A
// norm has no exchange: it adds its rows to the list, and every other operation begins the list
// anew.
void SoloCompiler::append(SoloOp op, const SoloRows& out) {
  if (op.kind == SoloKind::kNorm) {
    rows_in_use_.insert(rows_in_use_.end(), {op.x, op.residual, out});
  } else {
    const auto same = [&](const SoloRows& rows) { return rows.pitch != 0 && rows.at == out.at; };
    require(!same(op.x) && std::none_of(rows_in_use_.begin(), rows_in_use_.end(), same),
            "rows that are written while they are read");
    rows_in_use_ = {op.x};
  }
  op.out = out;
  ops_.push_back(op);
}

void SoloCompiler::add(const Embed& op) {
  const auto& [table, positions, scale] = op.embedding;
  require(table.columns == args_.width, "embeddings of {} columns", table.columns);
  require(static_cast<bool>(positions), "embeddings without positions");
  require(ops_.empty() && !args_.table, "an embedding behind other operations");
  require(aligned(table.data) && table.stride % 8 == 0 && aligned(positions.data) &&
              positions.stride % 4 == 0,
          "rows of embeddings that are not aligned");
  const Place out = place(op.out);
  args_.embedded = out.rows, args_.embedded_low_bits = out.low_bits;
  args_.table = table.data, args_.table_stride = table.stride;
  args_.positions = positions.as<float>(), args_.positions_stride = positions.stride;
  args_.scale = scale;
}

void SoloCompiler::add(const ApplyLinear& apply) {
  const Place x = place(apply.x), out = place(apply.out);
  const Tensor& weight = apply.layer.weight;
  require(packable(weight) && weight.columns == x.columns && weight.rows == out.columns,
          "a product of {} to {} columns", x.columns, out.columns);
  const bool sums = workspace_->rows(apply.out, args_.beams).dtype == DType::kFloat32;
  require(workspace_->rows(apply.x, args_.beams).dtype == weight.dtype &&
              !(sums && apply.activation != Activation::kNone),
          "a product of sums, or with an activation into sums");
  SoloOp op = empty_op(SoloKind::kLinear);
  op.activation = apply.activation;
  op.x = x.rows;
  op.float32_out = sums;
  op.in = narrow(x.columns), op.width = narrow(weight.rows);
  op.bias = apply.layer.bias.data;
  op.tiles = op.width / kSoloTileOutputs;
  op.tiles_each = (op.tiles + kSoloCluster - 1) / kSoloCluster;
  op.round_tiles = std::min(op.tiles_each, kSoloWarps);
  op.boxes = narrow(x.columns / kBoxColumns);
  op.stage_boxes =
      op.boxes % kSoloStageBoxes == 0 &&
              op.round_tiles * kSoloTileOutputs * 128 * kSoloStageBoxes <= kSoloStageBytes
          ? kSoloStageBoxes
          : 1;
  op.stages = op.boxes / op.stage_boxes;
  op.rounds = (op.tiles_each + op.round_tiles - 1) / op.round_tiles;
  append(op, out.rows);
  weights_.push_back(weight);
}

void SoloCompiler::add(const ApplyGate&) { require(false, "a gated feed-forward layer"); }

void SoloCompiler::add(const AddNorm& norm) {
  require(norm.y != norm.stream, "a norm on the embeddings");
  require(fusable(norm.after, norm.before), "another norm than a layer norm afterwards");
  require(workspace_->rows(norm.y, args_.beams).dtype == DType::kFloat32,
          "a norm of what are not accumulators");
  const Place stream = place(norm.stream), sums = place(norm.y);
  require(stream.columns == args_.width && sums.columns == args_.width &&
              aligned(norm.after.gain.data) && aligned(norm.after.shift.data),
          "a norm of {} columns", stream.columns);
  SoloOp op = empty_op(SoloKind::kNorm);
  op.x = sums.rows;
  op.residual = stream.rows, op.residual_low_bits = stream.low_bits,
  op.out_low_bits = stream.low_bits;
  op.in = op.width = args_.width;
  op.gain = norm.after.gain.as<float>(), op.shift = norm.after.shift.as<float>(),
  op.epsilon = norm.after.epsilon;
  append(op, stream.rows);
  weights_.push_back({});
}

void SoloCompiler::add(const AttendSelf& op) {
  const PagedCache& cache = step_->caches.self[op.layer];
  require(cache.keys_per_token == args_.beams, "{} keys per token for {} beams",
          cache.keys_per_token, args_.beams);
  attend(SoloKind::kSelf, op.queries_keys_values, cache, args_.self, op.attention, op.out);
}

void SoloCompiler::add(const AttendCross& op) {
  const PagedCache& cache = step_->caches.cross[op.layer];
  require(cache.keys_per_token == 1, "{} keys per token of the source", cache.keys_per_token);
  attend(SoloKind::kCross, op.queries, cache, args_.cross, op.attention, op.out);
}

void SoloCompiler::attend(SoloKind kind, TensorId x, const PagedCache& cache, CacheView& view,
                          const Attention& attention, TensorId out) {
  const Place rows = place(x), to = place(out);
  const std::int64_t width = to.columns, head = attention.head;
  const int heads = attention.heads;
  require(!attention.distance_bias, "a bias by distance");
  require(usual_scale(attention.scale, head), "scores times {}", attention.scale);
  require(width == args_.width && rows.columns == (kind == SoloKind::kSelf ? 3 : 1) * width &&
              heads <= kSoloCluster && width % heads == 0 &&
              (head == 32 || head == 64 || head == 128) &&
              (args_.heads == 0 || args_.heads == heads),
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
          .keys_per_token = cache.keys_per_token};
  args_.heads = heads, args_.head_stride = kSoloCluster / heads;
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
  require(!rules.has_row_rules, "rules of search");
  require(args_.table && args_.heads > 0 && places_.contains(program.out().index),
          "a step without embedding or attention");
  require(packable(weight) && weight.columns == args_.width &&
              vocabulary_kernel_fits(90, args_.width, weight.rows, candidates) &&
              rules.beams == args_.beams,
          "a vocabulary of {}, {} candidates", weight.rows, candidates);
  args_.hidden = place(program.out()).rows;
  args_.count = narrow(static_cast<std::int64_t>(ops_.size()));
  args_.vocabulary_bias = projection.linear.bias ? projection.linear.bias.as<float>() : nullptr;
  args_.vocabulary = narrow(weight.rows),
  args_.tiles = narrow((weight.rows + kSoloTileIds - 1) / kSoloTileIds);
  args_.candidates = candidates;
  args_.rules = rules;
  link();
}

// After a norm the next norm's gain may be fetched, and after an attention the next layer's keys of
// the same kind. Behind the last norm and the last cross-attention, the first ones of the next step
// follow. Behind the last self-attention nothing follows, because the next step has other keys.
void SoloCompiler::link() {
  const auto next_of = [&](SoloKind kind, std::size_t from) {
    for (std::size_t i = from; i < ops_.size(); ++i) {
      if (ops_[i].kind == kind) return narrow(static_cast<std::int64_t>(i));
    }
    return -1;
  };
  args_.first_norm = next_of(SoloKind::kNorm, 0), args_.first_self = next_of(SoloKind::kSelf, 0),
  args_.first_cross = next_of(SoloKind::kCross, 0);
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
          !at(args_.hidden, op.out) &&
          std::none_of(ops_.begin(), ops_.end(), [&](const SoloOp& other) {
            return (!is_attention(other) && at(other.x, op.out)) || at(other.residual, op.out);
          });
      continue;
    }
    op.next = next_of(op.kind, i + 1);
    if (op.next < 0 && op.kind == SoloKind::kNorm) op.next = args_.first_norm;
    if (op.next < 0 && op.kind == SoloKind::kCross) op.next = args_.first_cross;
  }
}

// Finds the largest number of held keys that leaves enough memory for the ring of stages.
bool SoloCompiler::lay_out(SoloArgs& args, int longest_source) {
  const SoloArgs fresh = args;
  const std::vector<SoloOp> ops = ops_;
  const int most =
      args.width / args.heads <= 64 ? kMostHeldKeys : kMostHeldKeys / 2 / kTileKeys * kTileKeys;
  for (int held = most; held > 0; held -= kTileKeys) {
    if (lay_out(args, longest_source, held)) return true;
    args = fresh, ops_ = ops;
  }
  return false;
}

// What has a fixed size is placed behind the ring, and the ring gets what is left.
bool SoloCompiler::lay_out(SoloArgs& args, int longest_source, int held_keys) {
  SoloLayout& layout = args.layout;
  const int beams = args.beams, head = args.width / args.heads,
            entries = narrow(args.state.longest) * beams + kTileKeys;
  // `entries` has kTileKeys more than there are keys, so that the last tile of keys is a whole one.
  // During the search, candidates and the SlotState are stored in place of self-attention's keys.
  const int best_bytes =
      beams * args.candidates * (args.candidates + 2) * narrow(sizeof(TokenValue)) +
      kSlotStateBytes;
  int end = 0;
  const auto reserve = [&](int bytes) { return std::exchange(end, end + (bytes + 15) / 16 * 16); };
  layout.key_pitch = 2 * head * 2 + kKeyGap;
  layout.held_keys = held_keys;
  layout.ops = reserve(narrow(static_cast<std::int64_t>(ops_.size() * sizeof(SoloOp))));
  // Two norms have their gain and shift here in turns.
  layout.norm = reserve(2 * 2 * args.width * narrow(sizeof(float)));
  layout.self_keys = reserve(std::max(layout.held_keys * layout.key_pitch, best_bytes));
  layout.cross_keys = reserve(layout.held_keys * layout.key_pitch);
  layout.list_rows = reserve(entries * narrow(sizeof(std::int32_t)));
  layout.list_beam_masks = reserve(entries);
  layout.source_rows = reserve(longest_source * narrow(sizeof(std::int32_t)));
  const int rows = reserve(row_bytes_);
  for (SoloOp& op : ops_) {
    if (op.kind == SoloKind::kLinear) op.biases = reserve(op.tiles_each * kSoloTileOutputs * 2);
  }
  layout.stages = std::min(kSoloMostStages, (shared_bytes_ - end) / kSoloStageBytes);
  const int ring = layout.stages * kSoloStageBytes;
  layout.bytes = ring + end;
  for (int* at : {&layout.ops, &layout.norm, &layout.self_keys, &layout.cross_keys,
                  &layout.list_rows, &layout.list_beam_masks, &layout.source_rows})
    *at += ring;
  for (SoloRows* at : {&args.embedded, &args.embedded_low_bits, &args.hidden})
    at->at += ring + rows;
  for (SoloOp& op : ops_) {
    op.biases += ring;
    for (SoloRows* at : {&op.x, &op.residual, &op.out, &op.residual_low_bits, &op.out_low_bits}) {
      if (at->pitch != 0) at->at += ring + rows;
    }
  }

  end = 0;
  const int blocks = (clusters_ - 1) * kSoloCluster;
  layout.slice_tiles = (args.tiles + blocks - 1) / blocks;
  layout.hidden = reserve(beams * (args.width * 2 + kSoloGap));
  layout.logits = reserve(beams * layout.slice_tiles * kSoloTileIds * narrow(sizeof(float)));
  layout.never = reserve(layout.slice_tiles * kSoloTileIds / 8);
  layout.vocabulary_stages = std::min(kSoloMostStages, (shared_bytes_ - end) / kSoloStageBytes);
  for (int* at : {&layout.hidden, &layout.logits, &layout.never})
    *at += layout.vocabulary_stages * kSoloStageBytes;
  layout.bytes = std::max(layout.bytes, layout.vocabulary_stages * kSoloStageBytes + end);
  return layout.stages >= kSoloLeastStages && layout.vocabulary_stages >= kSoloLeastStages;
}

Buffer SoloCompiler::pack(Stream& queue, Tensor weight, int slice_rows, int round_rows) {
  const SoloPacking packing{.rows = narrow(weight.rows),
                            .columns = narrow(weight.columns),
                            .stride = weight.stride,
                            .slice_rows = slice_rows,
                            .round_rows = round_rows};
  Buffer packed = backend_.allocate(packing.bytes());
  pack_solo_weight(packing, weight.data, packed.data(), queue.get());
  check(cudaGetLastError());
  return packed;
}

std::shared_ptr<CompiledStep> SoloCompiler::completed(Stream& queue, SoloArgs args,
                                                      Tensor vocabulary) try {
  auto step = std::make_shared<CompiledStep>();
  step->clusters = clusters_;
  for (std::size_t i = 0; i < ops_.size(); ++i) {
    SoloOp& op = ops_[i];
    if (op.kind != SoloKind::kLinear) continue;
    step->weights.push_back(pack(queue, weights_[i], op.tiles_each * kSoloTileOutputs,
                                 op.round_tiles * kSoloTileOutputs));
    op.weight = step->weights.back().data();
  }
  step->weights.push_back(pack(queue, vocabulary, kSoloTileIds, kSoloTileIds));
  args.vocabulary_weight = step->weights.back().data();
  const auto rows = static_cast<std::size_t>(args.beams),
             parts = static_cast<std::size_t>((clusters_ - 1) * kSoloCluster * args.candidates);
  step->ops = backend_.allocate(ops_.size() * sizeof(SoloOp));
  backend_.upload(queue, std::as_bytes(std::span(ops_)), step->ops.data());
  step->hidden_rows = backend_.allocate(rows * static_cast<std::size_t>(args.width) * 2);
  step->sums = backend_.allocate(rows * static_cast<std::size_t>(args.tiles) * sizeof(float2));
  step->lists = backend_.allocate(rows * parts * sizeof(TokenValue));
  args.ops = step->ops.as<SoloOp>(), args.hidden_rows = step->hidden_rows.data(),
  args.sums = step->sums.as<float2>(), args.lists = step->lists.as<TokenValue>();
  step->args = args;
  return step;
} catch (const Error&) {
  cudaGetLastError();
  return nullptr;
}

}  // namespace xlate::cuda
