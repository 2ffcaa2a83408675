// Times norms, and products with the norms behind them, for kernel_bench.h.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "engine/cuda/handles.h"
#include "engine/cuda/norms/norms.h"
#include "engine/cuda/products/tensor_map.h"
#include "tests/kernel_bench.h"
#include "tests/linear_norm.h"

namespace xlate::test {

// Holds the operands of a product and the norm behind it, for several calls.
struct Bench::NormedProduct {
  std::int64_t rows, in;
  Buffer x, weight, bias, stream, low_bits, sums, normed;
  Norm norm;
};

namespace {

int attribute(cudaDeviceAttr of) {
  int value = 0;
  cuda::check(cudaDeviceGetAttribute(&value, of, 0));
  return value;
}

int capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

// Launches the kernel that fuses a product with its norm, also for fewer rows than the backend
// launches it for.
template <class T>
void launch_fused(Queue& queue, const Tensor& x, const Linear& layer, const ResidualRows& stream,
                  const Norm& norm, const Tensor& normed) {
  const std::int64_t width = layer.weight.rows;
  const int tile = cuda::linear_norm_tile(x.rows, x.columns, width,
                                          attribute(cudaDevAttrMultiProcessorCount)),
            stride = static_cast<int>(stream.rounded.stride);
  cuda::linear_norm<T>(
      {.x = cuda::tensor_map(x, static_cast<int>(tile * cuda::kLinearNormOutputs / width)),
       .weight = cuda::tensor_map(layer.weight, cuda::kLinearNormOutputs),
       .bias = layer.bias.as<T>(),
       .residual = stream.rounded.as<T>(),
       .residual_low_bits = stream.low_bits.as<std::int8_t>(),
       .gain = norm.gain.as<float>(),
       .shift = norm.shift.as<float>(),
       .out = stream.rounded.as<T>(),
       .out_low_bits = stream.low_bits.as<std::int8_t>(),
       .rows = static_cast<int>(x.rows),
       .depth = static_cast<int>(x.columns),
       .width = static_cast<int>(width),
       .tile_rows = tile,
       .residual_stride = stride,
       .out_stride = stride,
       .epsilon = norm.epsilon,
       .rms = norm.kind == NormKind::kRms,
       .normed = static_cast<T*>(normed.data),
       .normed_stride = static_cast<int>(normed.stride)},
      static_cast<cuda::Stream&>(queue).get());
}

}  // namespace

void Bench::norm(std::int64_t rows) {
  if (!chosen("norm")) return;
  const double bytes =
      static_cast<double>(3 * rows * width_ * size_ + rests(2 * rows) + normed_bytes(rows));
  const std::int64_t copies = copies_for(bytes);
  const Buffer low_bits = numbers(copies * rows * width_), x = numbers(copies * rows * width_),
               r = numbers(copies * rows * width_), gain = floats(width_), bias = floats(width_),
               normed = backend_->allocate(static_cast<std::size_t>(copies * normed_bytes(rows)));
  const Norm norm = norm_of(gain, bias);
  add("norm", fmt::format("{}, residual{}", width_, norm_name()), rows, bytes, 0, copies,
      [&](std::int64_t i) {
        const bool before = options_.norm_before;
        backend_->add_norm(*queue_, wide(r, low_bits, rows, i), matrix(x, rows, width_, i),
                           before ? Norm{} : norm, before ? norm : Norm{},
                           before ? matrix(normed, rows, width_, i) : Tensor{});
      });
}

void Bench::linear_norm(std::int64_t rows, std::int64_t in) {
  if (!chosen("linear_norm")) return;
  const double bytes =
                   static_cast<double>((in * width_ + width_ + rows * (in + 2 * width_)) * size_ +
                                       rests(2 * rows) + normed_bytes(rows)),
               flops = 2.0 * static_cast<double>(rows * in * width_);
  const std::int64_t copies = copies_for(bytes);
  const Buffer gain = floats(width_), shift = floats(width_);
  const NormedProduct operands{
      rows,
      in,
      numbers(copies * rows * in),
      numbers(copies * in * width_, 0.05f),
      numbers(width_),
      numbers(copies * rows * width_),
      numbers(copies * rows * width_),
      floats(rows * width_),
      backend_->allocate(static_cast<std::size_t>(copies * normed_bytes(rows))),
      norm_of(gain, shift)};
  const auto& [count, depth, x, w, b, stream, low_bits, sums, normed, norm] = operands;
  const std::string shape = fmt::format("{}→{}, stream{}", in, width_, norm_name());
  add("linear_norm", shape, rows, bytes, flops, copies, [&](std::int64_t i) {
    const bool before = options_.norm_before;
    run_linear_norm(*backend_, *queue_, matrix(x, rows, in, i),
                    {matrix(w, width_, in, i), matrix(b, 1, width_)},
                    {sums.data(), DType::kFloat32, rows, width_, width_},
                    wide(stream, low_bits, rows, i), before ? Norm{} : norm, before ? norm : Norm{},
                    before ? matrix(normed, rows, width_, i) : Tensor{});
  });
  if (options_.both_ways) linear_norm_both_ways(operands, shape, bytes, flops, copies);
}

// The product of the two kernels has no bias here: the backend adds it in the norm, which costs
// next to nothing, and its interface has no call for that.
void Bench::linear_norm_both_ways(const NormedProduct& operands, const std::string& shape,
                                  double bytes, double flops, std::int64_t copies) {
  const auto& [rows, in, x, w, b, stream, low_bits, sums_buffer, normed, norm] = operands;
  const bool before = options_.norm_before;
  const Tensor sums{sums_buffer.data(), DType::kFloat32, rows, width_, width_};
  const auto normed_rows = [&](std::int64_t i) {
    return before ? matrix(normed, rows, width_, i) : Tensor{};
  };
  add("linear_norm", shape + ", two kernels", rows, bytes, flops, copies, [&](std::int64_t i) {
    backend_->linear(*queue_, matrix(x, rows, in, i), {matrix(w, width_, in, i), {}},
                     Activation::kNone, sums);
    backend_->add_norm(*queue_, wide(stream, low_bits, rows, i), sums, before ? Norm{} : norm,
                       before ? norm : Norm{}, normed_rows(i));
  });
  if (size_ != 2 || !cuda::linear_norm_supports(capability(), in, width_)) return;
  add("linear_norm", shape + ", one kernel", rows, bytes, flops, copies, [&](std::int64_t i) {
    const auto launch =
        type_ == DType::kFloat16 ? launch_fused<__half> : launch_fused<__nv_bfloat16>;
    launch(*queue_, matrix(x, rows, in, i), {matrix(w, width_, in, i), matrix(b, 1, width_)},
           wide(stream, low_bits, rows, i), norm, normed_rows(i));
  });
}

}  // namespace xlate::test
