#include "engine/cuda/few_steps.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>

#include "engine/cuda/handles.h"

namespace xlate::cuda {
namespace {

constexpr std::int64_t kPieceBytes = 16;
constexpr std::int64_t kNormPiecesInAll = 128;  // of a row that is normed
constexpr std::int64_t kNormWidth = 1024;
constexpr std::int64_t kPitchPad = 64;
constexpr std::size_t kMostCopied = 1024;

// Where an operation reads or writes rows.
struct Span {
  const char* first = nullptr;
  std::int64_t bytes = 0;
  bool meets(const Span& other) const { return first && other.first && first < other.first + other.bytes && other.first < first + bytes; }
};

Span span_of(const void* data, int rows, int stride, int columns, DType type) {
  return {static_cast<const char*>(data), (static_cast<std::int64_t>(rows - 1) * stride + columns) * static_cast<std::int64_t>(size_of(type))};
}
Span x_of(const FewOp& op, DType type) {
  const bool table = op.kind == FewKind::kEmbed || op.kind == FewKind::kEmbedStep, keys_too = op.kind == FewKind::kSelf || op.kind == FewKind::kPacked;
  return span_of(table ? nullptr : op.x, op.rows, op.x_stride, keys_too ? 3 * op.in : op.in, type);
}
Span added_of(const FewOp& op, DType type) { return span_of(op.added, op.rows, op.added_stride, op.in, type); }
Span normed_of(const FewOp& op, DType type) { return span_of(op.normed, op.rows, op.normed_stride, op.in, type); }
Span residual_of(const FewOp& op, DType type) { return span_of(op.residual, op.rows, op.residual_stride, op.out, type); }
Span out_of(const FewOp& op, DType type) { return span_of(op.out_rows, op.rows, op.out_stride, op.out, type); }

int narrow(std::int64_t n) { return static_cast<int>(n); }

bool same(const StepRows& a, const StepRows& b) { return a.slots == b.slots && a.groups == b.groups && a.beams == b.beams; }

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kPieceBytes == 0; }

template <class Body>
auto with_type(DType type, const Body& body) {
  switch (type) {
    case DType::kFloat16: return body(__half{});
    case DType::kBFloat16: return body(__nv_bfloat16{});
    default: return body(float{});
  }
}

}  // namespace

std::unique_ptr<FewSteps> FewSteps::open(Backend& backend, Queue& queue, int number, cudaStream_t stream) {
  FewDevice device{};
  const DType type = backend.compute_type();
  if (!with_type(type, [&](auto tag) { return prepare_few_rows<decltype(tag)>(number, device.blocks); })) {
    cudaGetLastError();
    return nullptr;
  }
  std::unique_ptr<FewSteps> steps(new FewSteps(type, device));
  const std::int64_t parts = kFewRows * device.blocks;
  steps->met_ = backend.allocate(sizeof(unsigned long long));
  steps->sums_ = backend.allocate(static_cast<std::size_t>(parts) * sizeof(float2));
  steps->lists_ = backend.allocate(static_cast<std::size_t>(parts * 2 * kFewRows) * sizeof(FewBest));
  steps->device_.met = steps->met_.as<unsigned long long>();
  backend.clear(queue, steps->met_.data(), steps->met_.bytes());
  check(cudaStreamSynchronize(stream));
  return steps;
}

void FewSteps::begin() {
  flush();
  stepping_ = whole_ = true;
}

std::unique_ptr<FewProgram> FewSteps::end() {
  const bool whole = whole_ && program_.count > 0;
  flush();
  stepping_ = false;
  return whole ? std::move(launched_) : nullptr;
}

// Like what is collected, it is launched when something follows.
void FewSteps::again(const FewProgram& step, int times, cudaStream_t stream) {
  flush();
  program_ = step;
  program_.times = times;
  stream_ = stream;
}

bool FewSteps::read(const void* device, void* host, std::size_t bytes, cudaStream_t stream) {
  if (!has_step() || stream != stream_ || program_.rows.groups != 1 || bytes % sizeof(std::int32_t) != 0 || bytes > kMostCopied) return false;
  program_.copy_from = static_cast<const std::int32_t*>(device);
  program_.copy_to = static_cast<std::int32_t*>(host);
  program_.copy_words = static_cast<int>(bytes / sizeof(std::int32_t));
  flush();
  return true;
}

void FewSteps::launch(const FewProgram& program, cudaStream_t stream) const {
  with_type(type_, [&](auto tag) { run_few_rows<decltype(tag)>(program, device_, stream); });
  check(cudaGetLastError());
}

void FewSteps::flush() {
  if (program_.count > 0) {
    if (program_.ops[program_.count - 1].late) split_last();
    finish_program();
    launch(program_, stream_);
    if (stepping_) launched_ = std::make_unique<FewProgram>(program_);
  }
  start_anew();
}

void FewSteps::forget(cudaStream_t stream) {
  if (stream == stream_) start_anew();
}

void FewSteps::start_anew() {
  whole_ = false;
  program_.count = 0;
  program_.times = 1;
  program_.state = {};
  program_.rows = {};
  program_.source_lengths = nullptr;
  program_.copy_from = nullptr, program_.copy_to = nullptr;
}

void FewSteps::finish_program() {
  program_.first_self = program_.first_cross = program_.vocabulary = -1;
  for (int i = program_.count; i-- > 0;) {
    const FewKind kind = program_.ops[i].kind;
    if (kind == FewKind::kSelf) program_.first_self = i;
    if (kind == FewKind::kCross) program_.first_cross = i;
    if (kind == FewKind::kVocabulary) program_.vocabulary = i;
  }
}

// How a product's rows are shared out to blocks, and its columns to warps.
void FewSteps::share_out(FewOp& op) const {
  const int pieces = op.in * narrow(static_cast<std::int64_t>(size_of(type_))) / narrow(kPieceBytes);
  op.each_share = op.out / device_.blocks, op.longer_shares = op.out % device_.blocks;
  op.slices = (pieces + 3) / 4, op.slices_each = (op.slices + kFewWarps - 1) / kFewWarps;
  const int fit = kFewRowBytes / (pieces * narrow(kPieceBytes) + narrow(kPitchPad));
  op.rows_staged = fit < kFewRows ? fit : fit / kFewRows * kFewRows;
}

// Rows that can be read in pieces of 16 bytes.
bool FewSteps::fits(Tensor x) const {
  const auto size = static_cast<std::int64_t>(size_of(type_));
  return x.dtype == type_ && x.rows > 0 && aligned(x.data) && x.columns * size % kPieceBytes == 0 && x.stride * size % kPieceBytes == 0;
}

// One program is about one step's rows.
void FewSteps::bind(const StepRows& rows, const SearchState* state) {
  if ((program_.rows.slots && !same(program_.rows, rows)) || (state && program_.state.token && program_.state.token != state->token)) flush();
  program_.rows = rows;
  if (state) program_.state = *state;
}

// A norm and the product of its rows are one operation, if no block then reads what another one writes.
bool FewSteps::fuse(const FewOp& op) {
  if (program_.count == 0 || (op.kind != FewKind::kLinear && op.kind != FewKind::kVocabulary)) return false;
  FewOp& norm = program_.ops[program_.count - 1];
  if (norm.kind != FewKind::kNorm || norm.normed != op.x || norm.rows != op.rows || norm.in != op.in || norm.normed_stride != op.x_stride) return false;
  const Span normed = normed_of(norm, type_), x = x_of(norm, type_), added = added_of(norm, type_), out = out_of(op, type_);
  if (normed.meets(residual_of(op, type_)) || normed.meets(out) || x.meets(out) || added.meets(out)) return false;
  const bool late = normed.meets(x) || normed.meets(added);  // which are then kept where not many rows have room
  if (late && op.rows > op.rows_staged) return false;
  FewOp both = op;
  both.x = norm.x, both.x_stride = norm.x_stride;
  both.added = norm.added, both.added_stride = norm.added_stride;
  both.normed = norm.normed, both.normed_stride = norm.normed_stride;
  both.gain = norm.gain, both.shift = norm.shift, both.epsilon = norm.epsilon;
  both.late = late;
  norm = both;
  return true;
}

// Undoes fuse().
void FewSteps::split_last() {
  FewOp& both = program_.ops[program_.count - 1];
  FewOp norm = both, product = both;
  norm.kind = FewKind::kNorm;
  norm.late = product.late = 0;
  norm.out_rows = nullptr, norm.weight = norm.bias = norm.residual = nullptr;
  product.x = both.normed, product.x_stride = both.normed_stride;
  product.added = nullptr, product.normed = nullptr, product.gain = product.shift = nullptr;
  both = norm;
  program_.ops[program_.count++] = product;
}

bool FewSteps::add(FewOp op, cudaStream_t stream) {
  if (has_step() || (program_.count > 0 && stream != stream_)) flush();
  stream_ = stream;
  if (!fuse(op)) {
    if (program_.count > 0 && program_.ops[program_.count - 1].late) {
      const Span late = normed_of(program_.ops[program_.count - 1], type_);
      for (const Span& used : {x_of(op, type_), added_of(op, type_), normed_of(op, type_), residual_of(op, type_), out_of(op, type_)}) {
        if (!late.meets(used)) continue;
        split_last();
        break;
      }
    }
    program_.ops[program_.count++] = op;
  }
  if (program_.count >= kFewOps - 1) flush();  // one more may come of splitting the last
  return true;
}

bool FewSteps::embed(FewOp op, const Embedding& embedding, Tensor out, cudaStream_t stream) {
  op.rows = narrow(out.rows), op.in = op.out = narrow(out.columns);
  op.x = embedding.table.data, op.x_stride = narrow(embedding.table.stride);
  op.positions = embedding.positions.as<float>(), op.added_stride = narrow(embedding.positions.stride);
  op.scale = embedding.scale;
  op.out_rows = out.data, op.out_stride = narrow(out.stride);
  return add(op, stream);
}

bool FewSteps::embed(const Embedding& embedding, const std::int32_t* ids, const std::int32_t* positions, Tensor out, cudaStream_t stream) {
  if (out.rows == 0 || out.rows > kMostRows) return false;
  FewOp op{};
  op.kind = FewKind::kEmbed;
  op.ids = ids, op.places = positions;
  return embed(op, embedding, out, stream);
}

bool FewSteps::embed_step(const Embedding& embedding, const SearchState& state, const StepRows& rows, Tensor out, cudaStream_t stream) {
  if (out.rows > kFewRows) return false;
  bind(rows, &state);
  FewOp op{};
  op.kind = FewKind::kEmbedStep;
  return embed(op, embedding, out, stream);
}

bool FewSteps::layer_norm(Tensor x, Tensor residual, const Norm& norm, Tensor out, cudaStream_t stream) {
  const std::int64_t pieces = x.columns * static_cast<std::int64_t>(size_of(type_)) / kPieceBytes;
  if (x.rows > kMostRows || x.columns > kNormWidth || pieces > kNormPiecesInAll || !fits(x) || !fits(out) || (residual && !fits(residual)) ||
      !aligned(norm.gain.data) || !aligned(norm.bias.data)) {
    return false;
  }
  FewOp op{};
  op.kind = FewKind::kNorm;
  op.rows = narrow(x.rows), op.in = op.out = narrow(x.columns);
  op.x = x.data, op.x_stride = narrow(x.stride);
  op.added = residual.data, op.added_stride = narrow(residual.stride);
  op.gain = norm.gain.as<float>(), op.shift = norm.bias.as<float>(), op.epsilon = norm.epsilon;
  op.normed = out.data, op.normed_stride = narrow(out.stride);
  return add(op, stream);
}

bool FewSteps::linear(Tensor x, const Linear& layer, Activation activation, Tensor residual, Tensor out, cudaStream_t stream) {
  if (x.rows > kMostRows || !fits(x) || !fits(layer.weight) || x.columns * static_cast<std::int64_t>(size_of(type_)) + kPitchPad > kFewRowBytes) return false;
  FewOp op{};
  op.kind = FewKind::kLinear;
  op.activation = static_cast<Act>(activation);
  op.rows = narrow(x.rows), op.in = narrow(x.columns), op.out = narrow(layer.weight.rows);
  op.x = x.data, op.x_stride = narrow(x.stride);
  op.weight = layer.weight.data, op.weight_stride = narrow(layer.weight.stride);
  op.bias = layer.bias.data;
  op.residual = residual.data, op.residual_stride = narrow(residual.stride);
  op.out_rows = out.data, op.out_stride = narrow(out.stride);
  share_out(op);
  return add(op, stream);
}

bool FewSteps::attend(FewOp op, Tensor query, int heads, Tensor out, cudaStream_t stream) {
  op.rows = narrow(out.rows), op.in = op.out = narrow(out.columns), op.heads = heads;
  const std::int64_t head_bytes = out.columns / heads * static_cast<std::int64_t>(size_of(type_));
  while (kPieceBytes << op.lanes_log < head_bytes) ++op.lanes_log;
  op.x = query.data, op.x_stride = narrow(query.stride);
  op.out_rows = out.data, op.out_stride = narrow(out.stride);
  return add(op, stream);
}

// A head must be whole pieces, no more than a warp has lanes.
bool FewSteps::fits_heads(Tensor query, int heads, Tensor out) const {
  const std::int64_t bytes = out.columns / heads * static_cast<std::int64_t>(size_of(type_));
  return fits(query) && out.columns % heads == 0 && bytes % kPieceBytes == 0 && bytes <= 32 * kPieceBytes;
}

bool FewSteps::fits_cache(const PagedCache& cache) const {
  return fits(cache.pages) && std::has_single_bit(static_cast<std::uint64_t>(cache.page_tokens)) && cache.pages.rows <= INT32_MAX && cache.pages.stride == cache.pages.columns;
}

bool FewSteps::attend_packed(Tensor qkv, int heads, Tensor out, cudaStream_t stream) {
  if (out.rows > kMostRows || !fits_heads(qkv, heads, out) || !fits(out)) return false;
  FewOp op{};
  op.kind = FewKind::kPacked;
  return attend(op, qkv, heads, out, stream);
}

// Whether the program has attention of the kind over another table: it looks up only once where the keys are.
bool FewSteps::differs(const PagedCache& cache, FewKind kind, int heads) const {
  for (int i = 0; i < program_.count; ++i) {
    const FewOp& op = program_.ops[i];
    if (op.kind == kind && (op.cache.table != cache.table || op.cache.page_tokens != cache.page_tokens || op.cache.lines != cache.lines || op.heads != heads)) return true;
  }
  return false;
}

bool FewSteps::attend_self(Tensor qkv, const PagedCache& cache, const SearchState& state, const StepRows& rows, int heads, Tensor out, cudaStream_t stream) {
  if (rows.rows() > kFewRows || !fits_heads(qkv, heads, out) || !fits_cache(cache)) return false;
  if (differs(cache, FewKind::kSelf, heads)) flush();
  bind(rows, &state);
  FewOp op{};
  op.kind = FewKind::kSelf;
  op.cache = {cache.pages.data, cache.table, cache.pages_per_slot, cache.page_tokens, cache.lines};
  op.page_log = std::countr_zero(static_cast<std::uint64_t>(cache.page_tokens));
  return attend(op, qkv, heads, out, stream);
}

bool FewSteps::attend_cross(Tensor query, const PagedCache& cache, const std::int32_t* source_lengths, const StepRows& rows, int heads, Tensor out, cudaStream_t stream) {
  if (rows.rows() > kFewRows || !fits_heads(query, heads, out) || !fits_cache(cache)) return false;
  if ((program_.source_lengths && program_.source_lengths != source_lengths) || differs(cache, FewKind::kCross, heads)) flush();
  bind(rows, nullptr);
  program_.source_lengths = source_lengths;
  FewOp op{};
  op.kind = FewKind::kCross;
  op.cache = {cache.pages.data, cache.table, cache.pages_per_slot, cache.page_tokens, cache.lines};
  op.page_log = std::countr_zero(static_cast<std::uint64_t>(cache.page_tokens));
  return attend(op, query, heads, out, stream);
}

bool FewSteps::search_step(Tensor hidden, const Projection& projection, const RulesView& rules, int count, const StepRows& rows, const SearchState& state, cudaStream_t stream) {
  const Tensor& weight = projection.linear.weight;
  const std::int64_t size = static_cast<std::int64_t>(size_of(type_)), share = (weight.rows + device_.blocks - 1) / device_.blocks;
  if (hidden.rows > kFewRows || !fits(hidden) || !fits(weight) || hidden.rows * (hidden.columns * size + kPitchPad) > kFewRowBytes || hidden.rows * share > kFewSums || share > kFewShare) {
    return false;
  }
  if (program_.count + 3 > kFewOps - 1) flush();
  bind(rows, &state);
  program_.rules = rules;
  program_.count_of_best = count;
  program_.parts = {sums_.as<float2>(), lists_.as<FewBest>()};
  FewOp op{};
  op.kind = FewKind::kVocabulary;
  op.rows = narrow(hidden.rows), op.in = narrow(hidden.columns), op.out = narrow(weight.rows);
  op.x = hidden.data, op.x_stride = narrow(hidden.stride);
  op.weight = weight.data, op.weight_stride = narrow(weight.stride);
  op.bias = projection.linear.bias.data;
  share_out(op);
  add(op, stream);
  op = {};
  op.kind = FewKind::kAdvance;
  op.rows = narrow(hidden.rows);
  return add(op, stream);
}

}  // namespace xlate::cuda
