// Implements products, with and without the norm after them. cuBLASLt computes the products, unless
// a kernel computes product and norm together (norms/linear_norm.cuh).
#include <algorithm>

#include "engine/cuda/cuda_backend.h"
#include "engine/cuda/norms/norms.h"
#include "engine/cuda/products/products.h"
#include "engine/cuda/products/tensor_map.h"
#include "engine/cuda/tensors.h"

namespace xlate::cuda {
namespace {

// Returns what the library applies of an activation in its epilogue: ReLU or nothing.
Activation library_activation(Activation activation) {
  return activation == Activation::kRelu ? activation : Activation::kNone;
}

// Returns whether norms/linear_norm.cuh can read and write these rows: all of them are aligned, and
// offsets fit into 32 bits.
bool vector_aligned(const Tensor& rows) {
  return rows.stride % 8 == 0 && aligned(rows.data) && rows.rows * rows.stride < INT32_MAX;
}
// Returns the same for rows of the residual stream. Their low bits must have the same stride.
bool vector_aligned(const ResidualRows& wide) {
  const Tensor &rounded = wide.rounded, &low_bits = wide.low_bits;
  return low_bits && low_bits.stride == rounded.stride && rounded.stride % 16 == 0 &&
         vector_aligned(rounded) && aligned(low_bits.data);
}

// Returns what these norms of an AddNorm have that norms/linear_norm.cuh does not compute.
std::string why_not_fusable(const Norm& after, const Norm& before) {
  if (after && before) return "a norm after a sublayer and one before the next";
  return after ? "another norm than a layer norm with a shift after a sublayer" : "no norm";
}

}  // namespace

// Where the fused kernel is not used, a product before a norm goes through the library without its
// bias (linear_then_norm). In batch-one mode (`solo_`) the fused kernel is never used.
Preparation::Expected CudaBackend::expected_product(std::int64_t in, std::int64_t out, bool bias,
                                                    bool before_norm, bool fusable,
                                                    Activation activation, void* memory,
                                                    std::int64_t rows,
                                                    std::int64_t most_rows) const {
  const auto any = [&](std::int64_t any_rows, std::int64_t columns, DType type) {
    return Tensor{memory, type, any_rows, columns, columns};
  };
  const bool plain = before_norm && size_of(type_) == 2;
  Preparation::Expected entry{{.x = any(rows, in, type_),
                               .weight = any(out, in, type_),
                               .bias = bias && !plain ? memory : nullptr,
                               .out = any(rows, out, plain ? DType::kFloat32 : type_),
                               .activation = library_activation(activation)},
                              {}};
  const std::vector<std::int64_t> planned = Gemm::planned_rows(type_, most_rows);
  for (std::size_t i = 0; i < planned.size(); ++i) {
    // This is the smallest number of rows that is rounded up to planned[i].
    const std::int64_t fewest = i + 1 < planned.size() ? planned[i + 1] + 1 : 1;
    if (!plain || !fusable || solo_ || !linear_norm_is_faster(capability_, fewest, in, out))
      entry.rows.push_back(planned[i]);
  }
  return entry;
}

// The library adds only a bias of the output's type. To accumulators in float32 our own kernel adds
// the bias.
void CudaBackend::linear(Queue& queue, Tensor x, const Linear& layer, Activation activation,
                         Tensor out) {
  if (x.rows == 0) return;
  const bool sums = out.dtype != x.dtype, bias = static_cast<bool>(layer.bias);
  if (sums && activation != Activation::kNone)
    fail("CUDA: a product that stays in float32 has an activation, expected none");
  const Activation in_library = library_activation(activation);
  gemm_->run({.x = x,
              .weight = layer.weight,
              .bias = sums ? nullptr : layer.bias.data,
              .out = out,
              .activation = in_library},
             flushed_stream(queue));
  if (in_library == activation && !(sums && bias)) return;
  with_type(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto finish = [&](auto out_tag) {
      using Out = decltype(out_tag);
      apply_epilogue<Out, T>({.bias = sums ? data_of<T>(layer.bias) : nullptr,
                              .out = data_of<Out>(out),
                              .rows = out.rows,
                              .columns = out.columns,
                              .out_stride = out.stride,
                              .activation = activation},
                             flushed_stream(queue));
    };
    if (sums)
      finish(float{});
    else
      finish(tag);
  });
}

void CudaBackend::gate(Queue& queue, Tensor x, Activation activation, Tensor out) {
  with_type(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    apply_gate<T>({.x = data_of<T>(x),
                   .out = data_of<T>(out),
                   .rows = out.rows,
                   .columns = out.columns,
                   .x_stride = x.stride,
                   .out_stride = out.stride,
                   .activation = activation},
                  flushed_stream(queue));
  });
}

void CudaBackend::add_norm(Queue& queue, ResidualRows stream, const Addend& y, const Norm& after,
                           const Norm& before, Tensor normed) {
  if (y && y.inside) norm_in_place(queue, y.rows, y.inside);
  add_norm(queue, stream, y, {}, after, before, normed);
}

void CudaBackend::norm_in_place(Queue& queue, Tensor rows, const Norm& norm) {
  with_type(rows.dtype, [&](auto tag) {
    using T = decltype(tag);
    norm_rows<T, T>({.x = data_of<T>(rows),
                     .x_bias = nullptr,
                     .residual = {},
                     .gain = data_of<float>(norm.gain),
                     .shift = data_of<float>(norm.shift),
                     .sum = {},
                     .out = residual_view<T>(ResidualRows(rows)),
                     .rows = rows.rows,
                     .width = rows.columns,
                     .x_stride = rows.stride,
                     .epsilon = norm.epsilon,
                     .rms = norm.kind == NormKind::kRms},
                    flushed_stream(queue));
  });
}

// The kernel computes one norm. With two of them it runs twice, the second time on the stream that
// the first one leaves.
void CudaBackend::add_norm(Queue& queue, ResidualRows stream, const Addend& addend,
                           const Tensor& bias, const Norm& after, const Norm& before,
                           Tensor normed) {
  if (after && before) {
    add_norm(queue, stream, addend, bias, after, {}, {});
    return add_norm(queue, stream, {}, {}, {}, before, normed);
  }
  const Tensor& y = addend.rows;
  const Norm& norm = after ? after : before;
  with_type(stream.rounded.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto run = [&](auto y_tag) {
      using Y = decltype(y_tag);
      norm_rows<T, Y>({.x = data_of<Y>(y),
                       .x_bias = data_of<T>(bias),
                       .residual = residual_view<const T>(stream),
                       .gain = data_of<float>(norm.gain),
                       .shift = data_of<float>(norm.shift),
                       .sum = residual_view<T>(after || !y ? ResidualRows() : stream),
                       .out = residual_view<T>(after ? stream : ResidualRows(normed)),
                       .rows = stream.rounded.rows,
                       .width = stream.rounded.columns,
                       .x_stride = y.stride,
                       .epsilon = norm.epsilon,
                       .rms = norm.kind == NormKind::kRms,
                       .x_scale = addend.scale},
                      flushed_stream(queue));
    };
    if (y && y.dtype != stream.rounded.dtype)
      run(float{});
    else
      run(tag);
  });
}

// The library computes the product without its bias, because for accumulators in float32 it takes
// only a float32 bias. The norm adds the bias.
void CudaBackend::linear_then_norm(Queue& queue, Tensor x, const Linear& layer, Tensor sums,
                                   ResidualRows stream, const Norm& after, const Norm& before,
                                   Tensor normed) {
  if (x.dtype == DType::kFloat32) {
    linear(queue, x, layer, Activation::kNone, sums);
    return add_norm(queue, stream, sums, after, before, normed);
  }
  if (x.rows == 0) return;
  gemm_->run({.x = x, .weight = layer.weight, .bias = nullptr, .out = sums}, flushed_stream(queue));
  add_norm(queue, stream, sums, layer.bias, after, before, normed);
}

void CudaBackend::linear_norm(Queue& queue, Tensor x, const Linear& layer, Tensor sums,
                              ResidualRows stream, const Norm& after, const Norm& before,
                              Tensor normed) {
  const std::int64_t width = layer.weight.rows;
  const Norm& norm = after ? after : before;
  if (!fusable_with_product(after, before)) {
    paths_.slow(KernelPaths::Of::kNorm, [&] { return why_not_fusable(after, before); });
    return linear_then_norm(queue, x, layer, sums, stream, after, before, normed);
  }
  if (!linear_norm_supports(capability_, x.columns, width) || size_of(type_) != 2) {
    paths_.slow(KernelPaths::Of::kNorm, [&] {
      const std::string reason = general_reason();
      return !reason.empty() ? reason
                             : fmt::format("products of {} to {} columns", x.columns, width);
    });
  }
  // In batch-one mode (`solo_`) product and norm are always two kernels, even for as many rows as
  // make the fused kernel faster. The results have the same bits.
  if (solo_ || !vector_aligned(stream) || !vector_aligned(normed) || !aligned(norm.gain.data) ||
      !aligned(norm.shift.data) || !has_tensor_map(x) || !has_tensor_map(layer.weight) ||
      !linear_norm_is_faster(capability_, x.rows, x.columns, width)) {
    return linear_then_norm(queue, x, layer, sums, stream, after, before, normed);
  }
  paths_.fast(KernelPaths::Of::kNorm);
  const int tile = linear_norm_tile(x.rows, x.columns, width, multiprocessors_);
  with_type(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(T) == 2) {
      xlate::cuda::linear_norm<T>(
          {.x = tensor_map(x, static_cast<int>(tile * kLinearNormOutputs / width)),
           .weight = tensor_map(layer.weight, kLinearNormOutputs),
           .bias = data_of<T>(layer.bias),
           .residual = data_of<T>(stream.rounded),
           .residual_low_bits = data_of<std::int8_t>(stream.low_bits),
           .gain = data_of<float>(norm.gain),
           .shift = data_of<float>(norm.shift),
           .out = data_of<T>(stream.rounded),
           .out_low_bits = data_of<std::int8_t>(stream.low_bits),
           .rows = static_cast<int>(x.rows),
           .depth = static_cast<int>(x.columns),
           .width = static_cast<int>(width),
           .tile_rows = tile,
           .residual_stride = static_cast<int>(stream.rounded.stride),
           .out_stride = static_cast<int>(stream.rounded.stride),
           .epsilon = norm.epsilon,
           .rms = norm.kind == NormKind::kRms,
           .normed = data_of<T>(normed),
           .normed_stride = static_cast<int>(normed.stride)},
          flushed_stream(queue));
    }
  });
}

}  // namespace xlate::cuda
