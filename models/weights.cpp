#include "models/weights.h"

#include <bit>
#include <cassert>
#include <cstring>

namespace xlate {
namespace {

// IEEE half to single without a branch: the exponent is corrected by a multiplication, which also makes subnormals right.
float from_half(std::uint16_t half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  bits |= magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN
  return std::bit_cast<float>(bits | static_cast<std::uint32_t>(half & 0x8000) << 16);
}

}  // namespace

void expand(const StoredTensor& stored, std::int64_t first, std::int64_t count, float* out) {
  switch (stored.dtype) {
    case DType::kFloat32: std::memcpy(out, stored.data + first * 4, static_cast<std::size_t>(count) * 4); return;
    case DType::kFloat16: {
      const auto* in = reinterpret_cast<const std::uint16_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count; ++i) out[i] = from_half(in[i]);
      return;
    }
    case DType::kBFloat16: {
      const auto* in = reinterpret_cast<const std::uint16_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(in[i]) << 16);
      return;
    }
    case DType::kInt8: {
      const auto* in = reinterpret_cast<const std::int8_t*>(stored.data) + first;
      for (std::int64_t i = 0; i < count;) {
        const std::int64_t row = (first + i) / stored.columns, end = std::min(count, (row + 1) * stored.columns - first);
        for (const float scale = stored.scale[row]; i < end; ++i) out[i] = static_cast<float>(in[i]) * scale;
      }
      return;
    }
  }
}

Weights::Weights(const ModelFile& file, Backend& backend, Queue& queue) : file_(file), backend_(backend), queue_(queue) {}

Linear Weights::linear(const std::string& name, std::int64_t out, std::int64_t in) {
  return {.weight = matrix(name + ".weight", out, in), .bias = vector(name + ".bias", out)};
}

Norm Weights::norm(const std::string& name, std::int64_t width, float epsilon) {
  return {.gain = vector(name + ".weight", width), .bias = vector(name + ".bias", width), .epsilon = epsilon};
}

Tensor Weights::matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
  return load(file_.matrix(name, rows, columns), backend_.compute_type());
}

Tensor Weights::vector(const std::string& name, std::int64_t size) { return load(file_.vector(name, size), DType::kFloat32); }

Tensor Weights::load(const StoredTensor& stored, DType type) {
  assert(type == DType::kFloat32);
  const auto key = std::make_pair(stored.data, type);
  if (const auto found = loaded_.find(key); found != loaded_.end() && found->second.rows == stored.rows) return found->second;
  const std::int64_t elements = stored.rows * stored.columns;
  buffers_.push_back(backend_.allocate(static_cast<std::size_t>(elements) * size_of(type)));
  bytes_ += static_cast<std::int64_t>(buffers_.back().bytes());
  const Tensor tensor{buffers_.back().data(), type, stored.rows, stored.columns, stored.columns};
  // In pieces that stay in the cache between their expansion and their copy.
  constexpr std::int64_t kPiece = 64 * 1024;
  std::vector<float> piece(static_cast<std::size_t>(std::min(kPiece, elements)));
  for (std::int64_t first = 0; first < elements; first += kPiece) {
    const std::int64_t count = std::min(kPiece, elements - first);
    expand(stored, first, count, piece.data());
    backend_.upload(queue_, std::as_bytes(std::span(piece).first(static_cast<std::size_t>(count))), tensor.as<float>() + first);
  }
  return loaded_[key] = tensor;
}

}  // namespace xlate
