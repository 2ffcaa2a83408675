// Products, with and without the norm behind them: by cuBLASLt, or where there is a kernel for both at once by that (norms/linear_norm.cu).
#include <algorithm>

#include "engine/cuda/cuda_backend.h"
#include "engine/cuda/norms/norms.h"
#include "engine/cuda/products/products.h"
#include "engine/cuda/products/tensor_map.h"
#include "engine/cuda/tensors.h"

namespace xlate::cuda {
namespace {

// The library adds before it activates; an activation goes before our residual.
bool library_activates(const Linear& layer, Activation activation, const Tensor& residual) {
  return activation == Activation::kNone || (activation == Activation::kRelu && !residual && layer.bias);
}

Gemm::Epilogue epilogue_of(const Linear& layer, Activation activation, const Tensor& residual) {
  if (!layer.bias) return Gemm::Epilogue::kNone;
  return activation == Activation::kRelu && library_activates(layer, activation, residual) ? Gemm::Epilogue::kBiasRelu : Gemm::Epilogue::kBias;
}

// Whether norms/linear_norm.cu takes these rows: their rests lie as they do.
bool in_pieces(const WideRows& wide) {
  const Tensor &rounded = wide.rounded, &rest = wide.rest;
  return rest && rest.stride == rounded.stride && rounded.stride % 16 == 0 && aligned(rounded.data) && aligned(rest.data) && rounded.rows * rounded.stride < INT32_MAX;
}

}  // namespace

// The library's own code.
void CudaBackend::prepare_library() {
  constexpr std::int64_t kSmall = 64;
  Buffer memory = allocate(kSmall * kSmall * size_of(type_));
  const Tensor any{memory.data(), type_, kSmall, kSmall, kSmall};
  preparation_ = std::make_unique<Preparation>(*gemm_, options_.device, Preparation::Expected{{.x = any, .weight = any, .bias = nullptr, .residual = {}, .out = any}, {kSmall}}, std::move(memory));
}

// With memory of their own, one for all operands: a model may be gone before its products are ready. Nothing fails for want of it: it is only taken
// where it is a small part of what search and the products still ask for.
void CudaBackend::expect(std::span<const ExpectedLinear> linears) {
  constexpr std::int64_t kRows = 128;
  std::int64_t most = 0;
  for (const ExpectedLinear& linear : linears) most = std::max({most, linear.layer->weight.rows * linear.layer->weight.columns, 2 * kRows * linear.layer->weight.rows, kRows * linear.layer->weight.columns});
  const std::int64_t bytes = most * static_cast<std::int64_t>(size_of(type_));
  if (bytes > (ledger_->limit - ledger_->used) / 8) return;
  Buffer memory = allocate(static_cast<std::size_t>(bytes));
  std::vector<Preparation::Expected> expected;
  for (const auto& [layer, activation, normed, most_rows] : linears) {
    if (solo_ && most_rows <= kSoloRows) continue;
    const std::int64_t in = layer->weight.columns, out = layer->weight.rows;
    const auto any = [&](std::int64_t rows, std::int64_t columns, DType type) { return Tensor{memory.data(), type, rows, columns, columns}; };
    const std::int64_t rows = std::min(kRows, most_rows);
    const bool plain = normed && size_of(type_) == 2;  // linear_then_norm
    Preparation::Expected entry{{.x = any(rows, in, type_), .weight = any(out, in, type_), .bias = layer->bias && !plain ? memory.data() : nullptr, .residual = {}, .out = any(rows, out, plain ? DType::kFloat32 : type_),
                                 .epilogue = plain ? Gemm::Epilogue::kNone : epilogue_of(*layer, activation, {})}, {}};
    const std::vector<std::int64_t> planned = Gemm::planned_rows(type_, most_rows);
    for (std::size_t i = 0; i < planned.size(); ++i) {
      const std::int64_t fewest = i + 1 < planned.size() ? planned[i + 1] + 1 : 1;
      if (!normed || size_of(type_) != 2 || solo_ || !linear_norm_fits(capability_, fewest, in, out)) entry.rows.push_back(planned[i]);
    }
    expected.push_back(std::move(entry));
  }
  preparation_->add(std::move(expected), std::move(memory));
}

void CudaBackend::linear(Queue& queue, Tensor x, const Linear& layer, Activation activation, Tensor residual, Tensor out) {
  if (x.rows == 0) return;
  const bool own_activation = !library_activates(layer, activation, residual);
  const auto epilogue = epilogue_of(layer, activation, residual);
  const bool in_place = residual && residual.data == out.data;
  if (own_activation && in_place) fail("CUDA: a product with an activation cannot have its output as residual");
  if (solo_ && solo_->linear(x, layer, activation, residual, out, queue, [=, this, &queue] { linear(queue, x, layer, activation, residual, out); })) return;
  gemm_->run({.x = x, .weight = layer.weight, .bias = layer.bias.data, .residual = own_activation ? Tensor{} : residual, .out = out, .epilogue = epilogue}, general(queue));
  if (!own_activation) return;
  with_type(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    finish_rows<T>({.residual = data_of<T>(residual),
                    .out = data_of<T>(out),
                    .rows = out.rows,
                    .columns = out.columns,
                    .residual_stride = residual.stride,
                    .out_stride = out.stride,
                    .activation = activation},
                   general(queue));
  });
}

// The product without its bias, which the library would want in float32, too.
void CudaBackend::linear_then_norm(Queue& queue, Tensor x, const Linear& layer, WideRows residual, const Norm& norm, Tensor between, WideRows out) {
  if (x.dtype == DType::kFloat32) return Backend::linear_norm(queue, x, layer, residual, norm, between, out);
  if (x.rows == 0) return;
  if (solo_ && solo_->linear_norm(x, layer, residual, norm, between, out, queue, [=, this, &queue] { linear_norm(queue, x, layer, residual, norm, between, out); })) return;
  gemm_->run({.x = x, .weight = layer.weight, .bias = nullptr, .residual = {}, .out = between, .epilogue = Gemm::Epilogue::kNone}, general(queue));
  with_type(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      xlate::cuda::layer_norm<T, float>({.x = data_of<float>(between),
                                         .x_bias = data_of<T>(layer.bias),
                                         .residual = wide_of<const T>(residual),
                                         .gain = data_of<float>(norm.gain),
                                         .bias = data_of<float>(norm.bias),
                                         .out = wide_of<T>(out),
                                         .rows = x.rows,
                                         .width = between.columns,
                                         .x_stride = between.stride,
                                         .epsilon = norm.epsilon},
                                        general(queue));
    }
  });
}

void CudaBackend::linear_norm(Queue& queue, Tensor x, const Linear& layer, WideRows residual, const Norm& norm, Tensor between, WideRows out) {
  const std::int64_t width = layer.weight.rows;
  if (!linear_norm_serves(capability_, x.columns, width) || size_of(type_) != 2) {
    paths_.slow(Paths::Of::kNorm, [&] {
      const std::string reason = general_reason();
      return !reason.empty() ? reason : fmt::format("products of {} to {} columns", x.columns, width);
    });
  }
  if (solo_ || !in_pieces(residual) || !in_pieces(out) || !aligned(norm.gain.data) || !aligned(norm.bias.data) || !has_tensor_map(x) || !has_tensor_map(layer.weight) || !linear_norm_fits(capability_, x.rows, x.columns, width)) {
    return linear_then_norm(queue, x, layer, residual, norm, between, out);
  }
  paths_.fast(Paths::Of::kNorm);
  const int tile = linear_norm_tile(x.rows, x.columns, width, multiprocessors_);
  with_type(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      xlate::cuda::linear_norm<T>({.x = tensor_map(x, static_cast<int>(tile * kLinearNormOutputs / width)),
                                   .weight = tensor_map(layer.weight, kLinearNormOutputs),
                                   .bias = data_of<T>(layer.bias),
                                   .residual = data_of<T>(residual.rounded),
                                   .residual_rest = data_of<std::int8_t>(residual.rest),
                                   .gain = data_of<float>(norm.gain),
                                   .shift = data_of<float>(norm.bias),
                                   .out = data_of<T>(out.rounded),
                                   .out_rest = data_of<std::int8_t>(out.rest),
                                   .rows = static_cast<int>(x.rows),
                                   .depth = static_cast<int>(x.columns),
                                   .width = static_cast<int>(width),
                                   .tile_rows = tile,
                                   .residual_stride = static_cast<int>(residual.rounded.stride),
                                   .out_stride = static_cast<int>(out.rounded.stride),
                                   .epsilon = norm.epsilon},
                                  general(queue));
    }
  });
}

}  // namespace xlate::cuda
