// Packs weights, and multiplies rows by them.
#include "engine/cpu/products/packed_matrix.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cstring>
#include <numeric>

#include "engine/cpu/loops.h"
#include "engine/cpu/products/half.h"
#include "engine/error.h"

namespace xlate::cpu {
namespace {

// The weights of a panel fill at most half of a second cache of 2 MiB, but for very deep products.
std::int64_t panel_columns_for(std::int64_t n, std::int64_t depth) {
  constexpr std::int64_t kHalf = PackedMatrix::kMostColumns / 2;
  return n <= kHalf || depth > 2048 ? kHalf : PackedMatrix::kMostColumns;
}

// The weights of narrower networks stay in the third cache, from which they are read faster than
// they are widened.
constexpr std::int64_t kLeastNarrowWidth = 512;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

// Has the system provide the pages of memory that is about to be written, in one call. When each
// was provided as it was touched, starting with a small model took 8 % longer (docs/benchmarks.md).
// A system that is older than Linux 5.14 refuses the call.
void take_pages([[maybe_unused]] std::byte* memory, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(memory) / page * page,
             end = reinterpret_cast<std::uintptr_t>(memory) + bytes;
  madvise(reinterpret_cast<void*>(first), end - first, MADV_POPULATE_WRITE);
#endif
}

}  // namespace

PackedMatrix::PackedMatrix(ProductLibrary& library, DType type, std::int64_t n, std::int64_t d)
    : type_(type),
      columns_(n),
      depth_(d),
      panel_columns_(panel_columns_for(n, d)),
      row_multiple_(library.row_multiple(type)),
      largest_(library.largest_weight()),
      product_(library.panel_product(type, panel_columns_, d)),
      panel_bytes_(aligned(product_->packed_bytes())) {
  narrow_.resize(static_cast<std::size_t>(panels()));
  if (type != DType::kInt8) return;
  // A sum of more products of two numbers up to 127 may not fit into 32 bits.
  constexpr std::int64_t kMostDepth = INT32_MAX / (127 * 127);
  if (d > kMostDepth)
    fail("int8: a weight has {} columns, expected at most {}, whose sums are exact", d, kMostDepth);
  scales_.resize(static_cast<std::size_t>(n));
  offsets_.resize(static_cast<std::size_t>(n));
}

std::size_t PackedMatrix::bytes() const {
  return static_cast<std::size_t>(panels()) * panel_bytes_;
}

void PackedMatrix::store(std::int64_t panel, const void* weights) {
  take_pages(stored(panel), panel_bytes_);
  product_->pack(weights, stored(panel));
}

void PackedMatrix::pack_float32(std::int64_t panel, const float* weights, std::byte* room) {
  if (std::min(columns_, depth_) < kLeastNarrowWidth) return store(panel, weights);
  // Whatever the layout is, it consists of numbers in float32. What pads it must be numbers, too.
  std::memset(room, 0, panel_bytes_);
  product_->pack(weights, room);
  std::byte* to = stored(panel);
  const bool narrow = narrow_exactly(reinterpret_cast<const float*>(room),
                                     static_cast<std::int64_t>(panel_bytes_ / sizeof(float)),
                                     reinterpret_cast<std::uint16_t*>(to));
  if (!narrow) std::memcpy(to, room, panel_bytes_);
  narrow_[static_cast<std::size_t>(panel)] = narrow;
}

const void* PackedMatrix::weights_of(std::int64_t panel, std::byte* room) const {
  const std::byte* packed = stored(panel);
  if (!narrow_[static_cast<std::size_t>(panel)]) return packed;
  widen(reinterpret_cast<const std::uint16_t*>(packed),
        static_cast<std::int64_t>(panel_bytes_ / sizeof(float)), reinterpret_cast<float*>(room));
  return room;
}

void PackedMatrix::pack(std::int64_t panel, const float* weights, std::byte* room) {
  const auto count = static_cast<std::size_t>(panel_columns_ * depth_);
  switch (type_) {
    case DType::kInt8: {
      std::vector<std::int8_t> values(count);
      for (std::int64_t i = columns_of(panel); i-- > 0;) {
        const auto column = static_cast<std::size_t>(first_column(panel) + i);
        std::int8_t* row = values.data() + i * depth_;
        scales_[column] = quantize_row(weights + i * depth_, depth_, largest_, row);
        offsets_[column] = static_cast<std::int32_t>(
            kInputOffset * std::accumulate(row, row + depth_, std::int64_t{0}));
      }
      return store(panel, values.data());
    }
    case DType::kBFloat16: {
      std::vector<std::uint16_t> values(count);
      round_row(weights, panel_columns_ * depth_, values.data());
      return store(panel, values.data());
    }
    default:
      return pack_float32(panel, weights, room);
  }
}

void PackedMatrix::multiply(const void* weights, const ProductInputs& inputs, std::int64_t first,
                            std::int64_t rows, void* sums) const {
  assert(first + rows <= inputs.count);
  const std::int64_t rounded = (rows + row_multiple_ - 1) / row_multiple_ * row_multiple_;
  product_->multiply(rounded,
                     inputs.rows + static_cast<std::size_t>(first * depth_) * size_of(type_),
                     weights, sums);
}

void PackedMatrix::finish(std::int64_t panel, const ProductInputs& inputs, std::int64_t row,
                          const void* sums, const float* bias, Activation activation,
                          float* out) const {
  const std::int64_t n = columns_of(panel);
  if (type_ == DType::kInt8)
    finish_row(static_cast<const std::int32_t*>(sums), offsets_.data() + first_column(panel),
               inputs.scales[row], scales_.data() + first_column(panel), bias, activation, n, out);
  else
    finish_row(static_cast<const float*>(sums), bias, activation, n, out);
}

}  // namespace xlate::cpu
