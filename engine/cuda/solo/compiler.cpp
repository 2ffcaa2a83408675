// This file compiles a program for the solo kernel (compiler.h).
#include "engine/cuda/solo/compiler.h"

#include <algorithm>
#include <utility>

#include "engine/cuda/attention/attention.h"
#include "engine/cuda/solo/division.h"
#include "engine/cuda/tensors.h"
#include "engine/cuda/vocabulary/vocabulary.h"
#include "engine/error.h"
#include "engine/workspace.h"

namespace xlate::cuda {
namespace {

// A box of a packed weight has this many columns.
constexpr std::int64_t kBoxColumns = 64;
// This many words of SoloPost are for a SoloStepResult.
constexpr std::size_t kResultWords = 16;
// The kernel's norms support rows of at most this many columns (kSoloNormVectors).
constexpr std::int64_t kNormWidth = 1024;
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
                                                    const RulesView& rules, int candidates) {
  if (no_room_) return nullptr;
  auto plan = this->plan(program, workspace, step, projection, rules, candidates);
  if (!plan) return nullptr;
  auto compiled = completed(queue, *std::move(plan), projection.linear.weight);
  no_room_ = !compiled;
  if (no_room_) reason_ = "too little memory for a second copy of its weights";
  return compiled;
}

std::optional<SoloPlan> SoloCompiler::plan(const Program& program, const Workspace& workspace,
                                           const Step& step, const Projection& projection,
                                           const RulesView& rules, int candidates) try {
  return planned(program, workspace, step, projection, rules, candidates);
} catch (const Unfit& unfit) {
  reason_ = unfit.why;
  return {};
}

SoloPlan SoloCompiler::planned(const Program& program, const Workspace& workspace, const Step& step,
                               const Projection& projection, const RulesView& rules,
                               int candidates) {
  workspace_ = &workspace, step_ = &step;
  args_ = {};
  ops_.clear(), weights_.clear(), places_.clear();
  numbered_ = 0;
  begin(step, program.tensors()[program.out().index].columns);
  find_in_place_norms(program);
  for (const Operation& operation : program.operations())
    std::visit([&](const auto& op) { add(op); }, operation);
  finish(program, projection, rules, candidates);
  SoloPlan plan{args_, ops_};
  const std::optional<int> row_bytes = share_rows(plan);
  require(row_bytes.has_value(),
          "rows that are written while they are read, or that nothing writes");
  // Two fifths of the blocks at least compute the vocabulary, and more of them where its logits
  // would not fit into shared memory.
  for (int most = room_.wide_blocks * 3 / 5; most > 0; most -= kSoloWideCluster) {
    SoloPlan tried = plan;
    divide_products(tried, most);
    if (lay_out(tried, *row_bytes, blocks_of(tried.args) - tried.args.layer_blocks, shared_bytes_,
                narrow(args_.cross.pages_per_slot * args_.cross.page_tokens)))
      return tried;
    if (!tried.args.wide) break;
  }
  throw Unfit{"shared memory is too small"};
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

// The norm before a sublayer may write its rows over the accumulators that it adds to the stream:
// all of a row is in registers before any of it is stored. Each row then begins where the row of
// accumulators does, which is twice as long.
void SoloCompiler::find_in_place_norms(const Program& program) {
  in_place_.clear();
  const auto columns = [&](TensorId id) { return program.tensors()[id.index].columns; };
  for (const Operation& operation : program.operations()) {
    const auto* norm = std::get_if<AddNorm>(&operation);
    if (norm && norm->before && norm->y != norm->stream && norm->normed != norm->stream &&
        columns(norm->y) == columns(norm->normed))
      in_place_.try_emplace(norm->normed.index, norm->y);
  }
}

SoloCompiler::Place SoloCompiler::place(TensorId id) {
  if (const auto found = in_place_.find(id.index); found != in_place_.end())
    return place(found->second);
  if (const auto found = places_.find(id.index); found != places_.end()) return found->second;
  const ResidualRows rows = workspace_->stream(id, args_.beams);
  const std::int64_t columns = rows.rounded.columns;
  require(columns % kBoxColumns == 0, "rows of {} columns", columns);
  const auto take = [&](const Tensor& tensor) {
    if (!tensor) return SoloRows{};
    const int pitch =
        narrow(columns) * narrow(static_cast<std::int64_t>(size_of(tensor.dtype))) + kSoloGap;
    return SoloRows{numbered_++, pitch};
  };
  const SoloRows rounded = take(rows.rounded);
  return places_[id.index] = {rounded, take(rows.low_bits), columns};
}

void SoloCompiler::append(const SoloOp& op, const Tensor& weight) {
  ops_.push_back(op);
  weights_.push_back(weight);
}

void SoloCompiler::add(const Embed& op) {
  const auto& [table, positions, scale] = op.embedding;
  require(table.columns == args_.width, "embeddings of {} columns", table.columns);
  require(ops_.empty() && !args_.table, "an embedding behind other operations");
  require(aligned(table.data) && table.stride % 8 == 0 && aligned(positions.data) &&
              positions.stride % 4 == 0,
          "rows of embeddings that are not aligned");
  const Place out = place(op.out);
  args_.embedded = out.rows, args_.embedded_low_bits = out.low_bits;
  args_.table = table.data, args_.table_stride = table.stride;
  if (positions)
    args_.positions = positions.as<float>(), args_.positions_stride = positions.stride;
  else
    args_.any = 1;
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
  op.x = x.rows, op.out = out.rows;
  op.out_kind = sums ? SoloOut::kFloat32 : SoloOut::kRounded;
  op.in = narrow(x.columns), op.width = narrow(weight.rows);
  op.bias = apply.layer.bias.data;
  op.tiles = op.width / kSoloTileOutputs;
  append(op, weight);
}

// The product before the gate computes the gate as well. Nothing else may read what the product
// alone would compute: share_rows refuses rows that nobody has written.
void SoloCompiler::add(const ApplyGate& gate) {
  const Place x = place(gate.x), out = place(gate.out);
  require(!ops_.empty() && ops_.back().kind == SoloKind::kLinear &&
              ops_.back().out_kind == SoloOut::kRounded &&
              ops_.back().activation == Activation::kNone && ops_.back().out.at == x.rows.at &&
              x.columns == 2 * out.columns,
          "a gate that is not behind its product");
  SoloOp& product = ops_.back();
  product.out_kind = SoloOut::kGated;
  product.activation = gate.activation;
  product.width = narrow(out.columns), product.out = out.rows;
  args_.any = 1;
}

// With two norms the second one reads the rows that the first one leaves, as in
// CudaBackend::add_norm.
void SoloCompiler::add(const AddNorm& norm) {
  const bool adds = norm.y != norm.stream;
  require(!norm.inside && norm.residual_scale == 1, "a norm inside a sublayer, or a scale");
  require(norm.after || norm.before, "an addition without a norm");
  require(!adds || workspace_->rows(norm.y, args_.beams).dtype == DType::kFloat32,
          "a norm of what are not accumulators");
  const Place stream = place(norm.stream), sums = adds ? place(norm.y) : Place{{}, {}, args_.width};
  require(stream.columns == args_.width && sums.columns == args_.width, "a norm of {} columns",
          stream.columns);
  if (!adds || !fusable(norm.after, norm.before)) args_.any = 1;
  if (norm.after) add_norm(norm.after, sums.rows, stream, stream, false);
  if (norm.before)
    add_norm(norm.before, norm.after ? SoloRows{} : sums.rows, stream, place(norm.normed),
             adds && !norm.after);
}

void SoloCompiler::add_norm(const Norm& norm, const SoloRows& x, const Place& stream,
                            const Place& out, bool stores_sum) {
  require(out.columns == args_.width && aligned(norm.gain.data) && aligned(norm.shift.data),
          "a norm of {} columns", out.columns);
  SoloOp op = empty_op(SoloKind::kNorm);
  op.x = x, op.out = out.rows;
  op.residual = stream.rows, op.residual_low_bits = stream.low_bits;
  op.out_low_bits = out.low_bits;
  op.rms = norm.kind == NormKind::kRms, op.stores_sum = stores_sum;
  op.in = op.width = args_.width;
  op.gain = norm.gain.as<float>();
  op.shift = norm.shift ? norm.shift.as<float>() : nullptr;
  op.epsilon = norm.epsilon;
  append(op);
}

void SoloCompiler::add(const TransformHeads&) { require(false, "a transform of heads"); }

void SoloCompiler::add(const Keep&) { require(false, "keys that are kept"); }

void SoloCompiler::add(const AttendPrompts&) { require(false, "packed prompts"); }

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
  const Tensor& bias = attention.distance_bias;
  const bool first = kind == SoloKind::kSelf && !args_.self.table;
  require(attention.group() == 1 && attention.softcap == 0 && attention.window == 0 &&
              !attention.slopes,
          "fewer heads of keys, a softcap, a window or slopes");
  require(attention.scale != 0, "scores times 0");
  require(!bias || (kind == SoloKind::kSelf && bias.rows == heads && bias.stride == bias.columns),
          "a distance bias in cross-attention");
  require(first || kind == SoloKind::kCross || args_.distance_bias == data_of<float>(bias),
          "layers with distance biases of their own");
  require(width == attention.width() && rows.columns == (kind == SoloKind::kSelf ? 3 : 1) * width &&
              heads <= kSoloCluster && (head == 32 || head == 64 || head == 128) &&
              (args_.heads == 0 || (args_.heads == heads && args_.attention_width == width)),
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
  args_.heads = heads;
  args_.attention_width = narrow(width);
  SoloOp op = empty_op(kind);
  op.x = rows.rows, op.out = to.rows;
  op.in = narrow(rows.columns), op.width = narrow(width);
  op.pages = cache.pages.data;
  if (bias)
    args_.distance_bias = data_of<float>(bias), args_.distances = narrow((bias.columns - 1) / 2);
  if (bias || !usual_scale(attention.scale, head)) op.scale = attention.scale, args_.any = 1;
  append(op);
}

void SoloCompiler::finish(const Program& program, const Projection& projection,
                          const RulesView& rules, int candidates) {
  const Tensor& weight = projection.linear.weight;
  require(!rules.has_row_rules, "rules of search");
  require(rules.beam_groups == 1, "groups of beams");
  require(projection.softcap == 0, "a softcap of logits");
  require(args_.table && args_.heads > 0 && !ops_.empty(), "a step without embedding or attention");
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
      const bool for_heads =
          op.out_kind == SoloOut::kRounded && !at(args_.hidden, op.out) &&
          std::none_of(ops_.begin(), ops_.end(), [&](const SoloOp& other) {
            return (!is_attention(other) && at(other.x, op.out)) || at(other.residual, op.out);
          });
      op.for_heads = for_heads ? op.width / args_.attention_width : 0;
      // The areas of SoloPost are free in time only if this is so (docs/kernels/batch_one.md).
      require(!for_heads || (i + 1 < ops_.size() && is_attention(ops_[i + 1])),
              "a product for attention that no attention follows");
      continue;
    }
    op.next = next_of(op.kind, i + 1);
    if (op.next < 0 && op.kind == SoloKind::kNorm) op.next = args_.first_norm;
    if (op.next < 0 && op.kind == SoloKind::kCross) op.next = args_.first_cross;
  }
}

int SoloCompiler::blocks_of(const SoloArgs& args) const {
  return args.wide ? std::min(room_.wide_blocks, args.layer_blocks + kSoloMostVocabularyBlocks)
                   : room_.narrow_blocks;
}

Buffer SoloCompiler::pack(Stream& queue, Tensor weight, SoloPacking packing) {
  packing.rows = narrow(weight.rows), packing.columns = narrow(weight.columns),
  packing.stride = weight.stride;
  Buffer packed = backend_.allocate(packing.bytes());
  pack_solo_weight(packing, weight.data, packed.data(), queue.get());
  check(cudaGetLastError());
  return packed;
}

std::shared_ptr<CompiledStep> SoloCompiler::completed(Stream& queue, SoloPlan plan,
                                                      Tensor vocabulary) try {
  auto& [args, ops] = plan;
  auto step = std::make_shared<CompiledStep>();
  step->blocks = blocks_of(args);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    SoloOp& op = ops[i];
    if (op.kind != SoloKind::kLinear) continue;
    step->weights.push_back(pack(queue, weights_[i],
                                 {.tiles = op.tiles,
                                  .slices = args.layer_blocks,
                                  .slice_tiles = most_tiles_of(op.tiles, args.layer_blocks),
                                  .round_tiles = op.round_tiles,
                                  .stage_boxes = op.stage_boxes,
                                  .gated = op.out_kind == SoloOut::kGated}));
    op.weight = step->weights.back().data();
  }
  constexpr int kTiles = kSoloTileIds / kSoloTileOutputs;
  step->weights.push_back(pack(queue, vocabulary,
                               {.tiles = args.tiles * kTiles,
                                .slices = args.tiles,
                                .slice_tiles = kTiles,
                                .round_tiles = kTiles,
                                .stage_boxes = 1}));
  args.vocabulary_weight = step->weights.back().data();
  const auto rows = static_cast<std::size_t>(args.beams),
             parts = static_cast<std::size_t>((step->blocks - args.layer_blocks) * args.candidates);
  step->ops = backend_.allocate(ops.size() * sizeof(SoloOp));
  backend_.upload(queue, std::as_bytes(std::span(ops)), step->ops.data());
  step->hidden_rows = backend_.allocate(rows * static_cast<std::size_t>(args.width) * 2);
  step->sums = backend_.allocate(rows * static_cast<std::size_t>(args.tiles) * sizeof(float2));
  step->lists = backend_.allocate(rows * parts * sizeof(TokenValue));
  if (args.wide) {
    const auto words = static_cast<std::size_t>(kSoloAreas * args.post.area) + kResultWords;
    step->posted = backend_.allocate(words * sizeof(std::uint64_t));
    args.post.words = step->posted.as<std::uint64_t>();
  }
  args.ops = step->ops.as<SoloOp>(), args.hidden_rows = step->hidden_rows.data(),
  args.sums = step->sums.as<float2>(), args.lists = step->lists.as<TokenValue>();
  step->args = args;
  return step;
} catch (const Error&) {
  cudaGetLastError();
  return nullptr;
}

}  // namespace xlate::cuda
