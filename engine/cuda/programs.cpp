// Runs programs on the GPU. A product and the norm after it are given to one function, which may
// run them as one kernel, and a step with a batch size of one is one launch of the solo kernel.
#include <algorithm>
#include <utility>
#include <variant>

#include "engine/cuda/cuda_backend.h"
#include "engine/cuda/tensors.h"
#include "engine/operations.h"

namespace xlate::cuda {
namespace {

/// Holds a product and the norm after it that adds its accumulators to the stream.
struct FusedPair {
  const ApplyLinear* product = nullptr;
  const AddNorm* norm = nullptr;
};

// Returns the product at i with the norm after it, if one kernel may compute both. Only the norm
// reads the accumulators (TensorKind::kAccumulator). The kernel writes the stream and may replace
// the rows that it adds (LinearNormArgs::residual), but not the rows that it multiplies, so a
// product that reads the same stream or the rows of `normed` is refused. A product with an
// activation is refused because the kernel applies none, and so is a norm inside or a scale.
FusedPair fused_at(const Program& program, std::size_t i) {
  const std::vector<Operation>& operations = program.operations();
  const auto* product = std::get_if<ApplyLinear>(&operations[i]);
  const auto* norm =
      product && i + 1 < operations.size() ? std::get_if<AddNorm>(&operations[i + 1]) : nullptr;
  if (!norm || norm->y != product->out || norm->y == norm->stream || product->x == norm->stream ||
      (norm->before && product->x == norm->normed) || product->activation != Activation::kNone ||
      norm->inside || norm->residual_scale != 1 ||
      program.tensors()[product->out.index].kind != TensorKind::kAccumulator)
    return {};
  return {product, norm};
}

}  // namespace

template <class Batch>
void CudaBackend::run_operations(Queue& queue, const Program& program, const Workspace& workspace,
                                 const Batch& batch) {
  const CallBackend<Batch> call{*this, queue, workspace, batch};
  for (std::size_t i = 0; i < program.operations().size(); ++i) {
    if (const auto [product, norm] = fused_at(program, i); norm) {
      linear_norm(queue, workspace.rows(product->x, call.count), product->layer,
                  workspace.rows(product->out, call.count),
                  workspace.stream(norm->stream, call.count), norm->after, norm->before,
                  norm->before ? workspace.rows(norm->normed, call.count) : Tensor{});
      ++i;
    } else {
      std::visit(call, program.operations()[i]);
    }
  }
}

void CudaBackend::run(Queue& queue, const Program& program, const Workspace& workspace,
                      const PackedRows& batch) {
  run_operations(queue, program, workspace, batch);
}

void CudaBackend::run(Queue& queue, const Program& program, const Workspace& workspace,
                      const Step& batch) {
  prepare_key_lists(queue, batch);
  const struct Listed {
    const Step*& listed;
    ~Listed() { listed = nullptr; }
  } until_done{listed_step_};
  listed_step_ = &batch;
  run_operations(queue, program, workspace, batch);
}

void CudaBackend::decode(Queue& queue, const Program& program, const Workspace& workspace,
                         const Step& batch, const Projection& projection,
                         const SearchRules& rules) {
  if (solo_ && compile_into_) {
    auto& stream = static_cast<Stream&>(queue);
    if (auto step = solo_->compiler().compile(stream, program, workspace, batch, projection,
                                              view_of(queue, rules), rules.candidates())) {
      *compile_into_ = step;
      solo_->put(std::move(step), 1, stream);
      return paths_.fast(KernelPaths::Of::kSolo);
    }
  }
  // A reason is noted only where compilation was refused, or the solo kernel cannot run at all. If
  // compile_into_ is null, as it is outside of repeat(), nothing was refused.
  if (options_.one_at_a_time && (!solo_ || compile_into_)) {
    paths_.slow(KernelPaths::Of::kSolo, [&] {
      const std::string reason = solo_ ? solo_->compiler().reason() : general_reason();
      return !reason.empty()
                 ? reason
                 : std::string("the device has no room for clusters of 8 and 16 blocks");
    });
  }
  Backend::decode(queue, program, workspace, batch, projection, rules);
}

// Prepares a small product, with which the library loads its code.
void CudaBackend::prepare_library() {
  constexpr std::int64_t kSmall = 64;
  Buffer memory = allocate(kSmall * kSmall * size_of(type_));
  const Tensor any{memory.data(), type_, kSmall, kSmall, kSmall};
  preparation_ = std::make_unique<Preparation>(
      *gemm_, options_.device,
      Preparation::Expected{{.x = any, .weight = any, .bias = nullptr, .out = any}, {kSmall}},
      std::move(memory));
}

// The products get memory of their own, one buffer for all their operands, because the model may be
// gone before they are prepared. Nothing fails for want of this memory: it is taken only if it is
// at most an eighth of what the limit leaves for search and for products. Layers are alike, so a
// product of each shape is prepared once. In batch-one mode nothing is prepared for passes of at
// most kSoloRows rows, because the solo kernel computes such steps without the library.
void CudaBackend::prepare(const Program& program, std::int64_t most_rows) {
  constexpr std::int64_t kRows = 128;
  if (solo_ && most_rows <= kSoloRows) return;
  struct Shape {
    std::int64_t in, out;
    bool bias, before_norm, fusable;
    Activation activation;
    bool operator==(const Shape&) const = default;
  };
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < program.operations().size(); ++i) {
    const auto* product = std::get_if<ApplyLinear>(&program.operations()[i]);
    if (!product) continue;
    const AddNorm* norm = fused_at(program, i).norm;
    const Shape shape{product->layer.weight.columns,
                      product->layer.weight.rows,
                      static_cast<bool>(product->layer.bias),
                      norm != nullptr,
                      norm && fusable_with_product(norm->after, norm->before),
                      product->activation};
    if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
  }
  std::int64_t most = 0;
  for (const Shape& shape : shapes)
    most = std::max({most, shape.out * shape.in, 2 * kRows * shape.out, kRows * shape.in});
  const std::int64_t bytes = most * static_cast<std::int64_t>(size_of(type_));
  if (bytes > (memory_usage_->limit - memory_usage_->used) / 8) return;
  Buffer memory = allocate(static_cast<std::size_t>(bytes));
  std::vector<Preparation::Expected> expected;
  for (const auto& [in, out, bias, before_norm, fusable, activation] : shapes)
    expected.push_back(expected_product(in, out, bias, before_norm, fusable, activation,
                                        memory.data(), std::min(kRows, most_rows), most_rows));
  preparation_->add(std::move(expected), std::move(memory));
}

}  // namespace xlate::cuda
