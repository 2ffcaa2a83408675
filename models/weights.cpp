// Converts stored tensors to float32, and copies tensors to the device, padded and each once.
#include "models/weights.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "engine/error.h"

namespace xlate {
namespace {

// Converts an IEEE 754 half to a single without a branch. The biases of the two exponents differ by
// 112, so that a multiplication by 2^112 corrects the exponent, and converts subnormals correctly
// too.
float from_half(std::uint16_t half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  // Infinity and NaN keep the largest exponent.
  bits |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(bits | static_cast<std::uint32_t>(half & 0x8000) << 16);
}

// Returns the largest magnitude of the finite values, or 0 if there are none.
float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) {
    const float magnitude = std::abs(value);
    largest =
        magnitude < std::numeric_limits<float>::infinity() ? std::max(largest, magnitude) : largest;
  }
  return largest;
}

}  // namespace

void expand(const StoredTensor& stored, std::int64_t first, std::int64_t count, float* out) {
  switch (stored.dtype) {
    case DType::kFloat32:
      std::memcpy(out, stored.data + first * 4, static_cast<std::size_t>(count) * 4);
      return;
    case DType::kFloat16: {
      const auto* in = reinterpret_cast<const std::uint16_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count; ++i) out[i] = from_half(in[i]);
      return;
    }
    case DType::kBFloat16: {
      const auto* in = reinterpret_cast<const std::uint16_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(in[i]) << 16);
      return;
    }
    case DType::kInt8: {
      const auto* in = reinterpret_cast<const std::int8_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count;) {
        const std::int64_t row = (first + i) / stored.columns,
                           end = std::min(count, (row + 1) * stored.columns - first);
        for (const float scale = stored.scale[row]; i < end; ++i)
          out[i] = static_cast<float>(in[i]) * scale;
      }
      return;
    }
  }
}

Weights::Weights(const ModelFile& file, Backend& backend, Queue& queue)
    : file_(file), backend_(backend), queue_(queue) {}

Linear Weights::linear(const std::string& name, const std::string& like, std::int64_t out,
                       std::int64_t in) {
  Linear layer = weights(name + ".weight", out, in);
  layer.bias = vector_if(like + ".bias", name + ".bias", out, backend_.compute_type());
  return layer;
}

Linear Weights::projection(const std::string& name, std::int64_t out, std::int64_t in,
                           float scale) {
  Linear layer = weights(name + ".weight", out, in);
  layer.bias = scaled_if(name + ".bias", name + ".bias", out, scale);
  return layer;
}

Linear Weights::weights(const std::string& name, std::int64_t out, std::int64_t in) {
  const StoredTensor stored = file_.matrix(name, out, in);
  const DType type = backend_.compute_type();
  std::shared_ptr<const PackedWeight>& packed = packed_[key_of(stored, type)];
  if (!packed) {
    packed = backend_.pack(out, in, [&](std::int64_t first, std::int64_t count, float* rows) {
      expand(stored, first * in, count * in, rows);
    });
  }
  if (packed) return {.weight = {nullptr, type, out, in, in}, .bias = {}, .packed = packed};
  return {.weight = load(name, stored, type), .bias = {}};
}

Norm Weights::norm(const std::string& name, const std::string& like, std::int64_t width,
                   NormKind kind, float epsilon, float scale) {
  return {.gain = scaled(name + ".weight", width, scale),
          .shift = scaled_if(like + ".bias", name + ".bias", width, scale),
          .epsilon = epsilon,
          .kind = kind};
}

Tensor Weights::scaled(const std::string& name, std::int64_t size, float scale) {
  if (scale == 1) return vector(name, size, DType::kFloat32);
  const StoredTensor stored = file_.vector(name, size);
  std::vector<float> values(static_cast<std::size_t>(stored.columns));
  expand(stored, 0, stored.columns, values.data());
  for (float& value : values) value *= scale;
  const std::size_t bytes = values.size() * sizeof(float);
  buffers_.push_back(backend_.allocate(bytes));
  bytes_ += static_cast<std::int64_t>(bytes);
  backend_.upload(queue_, std::as_bytes(std::span(values)), buffers_.back().data());
  return {buffers_.back().data(), DType::kFloat32, 1, stored.columns, stored.columns};
}

Tensor Weights::matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
  return load(name, file_.matrix(name, rows, columns), backend_.compute_type());
}

Tensor Weights::table(const std::string& name, std::int64_t rows, std::int64_t columns) {
  return load(name, file_.matrix(name, rows, columns), DType::kFloat32);
}

Tensor Weights::numbers(const std::string& name, std::int64_t size) {
  return vector(name, size, DType::kFloat32);
}

Tensor Weights::vector(const std::string& name, std::int64_t size, DType type) {
  return load(name, file_.vector(name, size), type);
}

Tensor Weights::vector_if(const std::string& like, const std::string& name, std::int64_t size,
                          DType type) {
  return file_.has_tensor(like) ? vector(name, size, type) : Tensor{};
}

Tensor Weights::scaled_if(const std::string& like, const std::string& name, std::int64_t size,
                          float scale) {
  return file_.has_tensor(like) ? scaled(name, size, scale) : Tensor{};
}

Tensor Weights::load(const std::string& name, const StoredTensor& stored, DType type) {
  const Key key = key_of(stored, type);
  if (const auto found = loaded_.find(key); found != loaded_.end()) return found->second;
  const std::int64_t elements = stored.rows * stored.columns,
                     multiple = stored.rows > 1 ? backend_.row_multiple() : 1;
  const std::int64_t rows = (stored.rows + multiple - 1) / multiple * multiple;
  const std::size_t bytes = static_cast<std::size_t>(rows * stored.columns) * size_of(type),
                    filled = static_cast<std::size_t>(elements) * size_of(type);
  buffers_.push_back(backend_.allocate(bytes));
  bytes_ += static_cast<std::int64_t>(bytes);
  char* data = buffers_.back().as<char>();
  if (bytes > filled) backend_.clear(queue_, data + filled, bytes - filled);
  if (stored.dtype == type) {
    backend_.upload(queue_, {stored.data, filled}, data);
  } else {
    upload_expanded(name, stored, type, elements, data);
  }
  return loaded_[key] = {data, type, stored.rows, stored.columns, stored.columns};
}

// Expands and copies 64 Ki elements at a time, so that they stay in the processor's cache in
// between.
void Weights::upload_expanded(const std::string& name, const StoredTensor& stored, DType type,
                              std::int64_t elements, char* device) {
  constexpr std::int64_t kChunk = 64 * 1024;
  std::vector<float> chunk(static_cast<std::size_t>(std::min(kChunk, elements)));
  for (std::int64_t first = 0; first < elements; first += kChunk) {
    const std::int64_t count = std::min(kChunk, elements - first);
    expand(stored, first, count, chunk.data());
    check_range(name, std::span(chunk).first(static_cast<std::size_t>(count)), type);
    backend_.upload_as(queue_, std::span(chunk).first(static_cast<std::size_t>(count)), type,
                       device + static_cast<std::size_t>(first) * size_of(type));
  }
}

void Weights::check_range(const std::string& name, std::span<const float> values,
                          DType type) const {
  // This is the least number that rounds to infinity in float16.
  constexpr float kOverflow = 65520;
  if (type != DType::kFloat16) return;
  if (const float largest = largest_magnitude(values); largest >= kOverflow) {
    fail(
        "{}: tensor '{}' has a value of magnitude {:g}, which float16 cannot hold; --precision "
        "bf16 or fp32 can",
        file_.name(), name, largest);
  }
}

}  // namespace xlate
