// Packs weights, prepares the inputs of products, and divides products among the threads.
#include <cstring>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

// A product of fewer multiplications takes only some microseconds and is not divided among threads.
constexpr std::int64_t kWorthSharing = 64 * 1024;
// Products of fewer rows would read the weights of a panel too often.
constexpr std::int64_t kLeastBlockRows = 16;

DType product_type(Precision precision) {
  switch (precision) {
    case Precision::kInt8:
      return DType::kInt8;
    case Precision::kBFloat16:
      return DType::kBFloat16;
    default:
      return DType::kFloat32;
  }
}

}  // namespace

std::shared_ptr<const PackedWeight> CpuBackend::pack(
    std::int64_t rows, std::int64_t columns,
    const std::function<void(std::int64_t, std::int64_t, float*)>& read) {
  const auto packed =
      std::make_shared<PackedMatrix>(*products_, product_type(options_.precision), rows, columns);
  packed->take(allocate(packed->bytes()));
  pool_.run(packed->panels(), [&](std::int64_t panel, int thread) {
    const std::int64_t n = packed->columns_of(panel), all = packed->panel_columns();
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    float* weights = scratch.numbers_of(all * columns);
    read(packed->first_column(panel), n, weights);
    std::fill(weights + n * columns, weights + all * columns, 0.0f);
    packed->pack(panel, weights, scratch.room_for(*packed, 1));
  });
  return packed;
}

std::shared_ptr<const PackedMatrix> CpuBackend::packed_weight(const Linear& layer) {
  if (layer.packed) return std::static_pointer_cast<const PackedMatrix>(layer.packed);
  const Tensor& weight = layer.weight;
  return std::static_pointer_cast<const PackedMatrix>(
      pack(weight.rows, weight.columns, [&](std::int64_t first, std::int64_t count, float* out) {
        for (std::int64_t i = 0; i < count; ++i)
          std::copy_n(weight.as<float>() + (first + i) * weight.stride, weight.columns,
                      out + i * weight.columns);
      }));
}

ProductInputs CpuBackend::inputs_of(Tensor x, const PackedMatrix& weight) {
  const DType type = weight.type();
  const std::int64_t multiple = products_->row_multiple(type), depth = x.columns;
  if (type == DType::kFloat32 && x.rows % multiple == 0 && x.stride == depth)
    return {static_cast<const std::byte*>(x.data), x.rows, nullptr};
  const std::size_t row_bytes = static_cast<std::size_t>(depth) * size_of(type),
                    bytes = static_cast<std::size_t>(x.rows + multiple) * row_bytes;
  if (inputs_.size() < bytes) inputs_.resize(bytes);
  if (input_scales_.size() < static_cast<std::size_t>(x.rows))
    input_scales_.resize(static_cast<std::size_t>(x.rows));
  each_row(pool_, x.rows, [&](std::int64_t row) {
    const float* from = x.as<float>() + row * x.stride;
    std::byte* to = inputs_.data() + static_cast<std::size_t>(row) * row_bytes;
    switch (type) {
      case DType::kInt8:
        input_scales_[static_cast<std::size_t>(row)] =
            quantize_inputs(from, depth, reinterpret_cast<std::uint8_t*>(to));
        break;
      case DType::kBFloat16:
        round_row(from, depth, reinterpret_cast<std::uint16_t*>(to));
        break;
      default:
        std::memcpy(to, from, row_bytes);
    }
  });
  return {inputs_.data(), x.rows, type == DType::kInt8 ? input_scales_.data() : nullptr};
}

// A task is a panel and some consecutive blocks of rows. With few threads it is a panel with all
// rows, so that its weights are read from memory once. With many threads the blocks are smaller.
void CpuBackend::linear(Queue&, Tensor x, const Linear& layer, Activation activation, Tensor out) {
  assert(x.columns == layer.weight.columns && out.columns == layer.weight.rows &&
         out.rows == x.rows);
  if (x.rows == 0) return;
  const std::shared_ptr<const PackedMatrix> weight = packed_weight(layer);
  const ProductInputs inputs = inputs_of(x, *weight);
  const float* bias = layer.bias ? layer.bias.as<float>() : nullptr;
  const std::int64_t panels = weight->panels(), wanted = 2 * pool_.threads();
  std::int64_t block_rows = kMostProductRows;
  while (block_rows > kLeastBlockRows && panels * ((x.rows + block_rows - 1) / block_rows) < wanted)
    block_rows /= 2;
  const std::int64_t blocks = (x.rows + block_rows - 1) / block_rows,
                     groups = std::min(blocks, (wanted + panels - 1) / panels);
  auto multiply = [&](std::int64_t task, int thread) {
    const std::int64_t panel = task / groups, group = task % groups,
                       column = weight->first_column(panel);
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const void* weights = weight->weights_of(panel, scratch.room_to_widen(*weight, 1));
    float* sums = scratch.sums;
    for (std::int64_t block = group * blocks / groups; block < (group + 1) * blocks / groups;
         ++block) {
      const std::int64_t first = block * block_rows, rows = std::min(block_rows, x.rows - first);
      weight->multiply(weights, inputs, first, rows, sums);
      for (std::int64_t i = 0; i < rows; ++i)
        weight->finish(panel, inputs, first + i, sums + i * weight->panel_columns(),
                       bias ? bias + column : nullptr, activation,
                       out.as<float>() + (first + i) * out.stride + column);
    }
  };
  if (x.rows * out.columns * x.columns >= kWorthSharing)
    return pool_.run(panels * groups, multiply);
  for (std::int64_t task = 0; task < panels * groups; ++task) multiply(task, 0);
}

}  // namespace xlate::cpu
