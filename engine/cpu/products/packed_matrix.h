// PackedMatrix: the weights of a linear layer in the layout and type that the CPU's products read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/activation.h"
#include "engine/backend.h"
#include "engine/cpu/products/product_library.h"

namespace xlate::cpu {

/// Views the rows that products read, [count, d], in the type of the weights, but unsigned where it
/// is int8 (kInputOffset). Behind the last row there are rows without meaning up to a multiple of
/// ProductLibrary::row_multiple().
struct ProductInputs {
  const std::byte* rows = nullptr;
  std::int64_t count = 0;
  // They are [count]. The values of a row of int8 are its elements, less kInputOffset, times its
  // scale. Other types have none.
  const float* scales = nullptr;
};

/// Holds weights W [n, d] in panels of some rows of W, which are columns of the outputs. How a
/// product is divided into panels depends on W alone. So no output depends on the number of
/// threads. A panel of float32 of a wide network is stored in float16 where that loses nothing, as
/// where a checkpoint was in float16: products of few rows wait for weights from memory.
class PackedMatrix final : public PackedWeight {
 public:
  /// Says that the weights will be packed in this type: float32, bfloat16, or int8 with a scale for
  /// each row of W. Throws Error where sums of int8 of this depth might overflow 32 bits.
  PackedMatrix(ProductLibrary&, DType, std::int64_t n, std::int64_t d);

  DType type() const { return type_; }
  std::int64_t depth() const { return depth_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t panels() const { return (columns_ + panel_columns_ - 1) / panel_columns_; }
  /// Returns the first column of a panel.
  std::int64_t first_column(std::int64_t panel) const { return panel * panel_columns_; }
  /// Returns the number of columns of every panel, at most kMostColumns and a divisor of it. Those
  /// behind the last column of W are zero. So there are no narrow panels, for which the library
  /// would choose other code.
  std::int64_t panel_columns() const { return panel_columns_; }
  static constexpr std::int64_t kMostColumns = 128;
  /// Returns the number of columns of W in a panel.
  std::int64_t columns_of(std::int64_t panel) const {
    return std::min(panel_columns_, columns_ - first_column(panel));
  }
  /// Returns the number of the panel that begins with this column, a multiple of panel_columns().
  std::int64_t panel_at(std::int64_t column) const { return column / panel_columns_; }

  /// Returns the number of bytes of all packed panels, as if none were stored in float16.
  std::size_t bytes() const;
  /// Gives the memory for the panels, of at least bytes() bytes.
  void take(Buffer memory) { memory_ = std::move(memory); }
  /// Packs a panel of the weights, [panel_columns(), d]. `room` is scratch of panel_bytes() bytes.
  /// Several threads may pack different panels.
  void pack(std::int64_t panel, const float* weights, std::byte* room);

  /// Returns the weights of a panel as multiply() reads them. They are in `room`, of panel_bytes()
  /// bytes at a multiple of kPanelAlignment, if they had to be widened.
  const void* weights_of(std::int64_t panel, std::byte* room) const;
  std::size_t panel_bytes() const { return panel_bytes_; }
  /// Returns whether weights_of() widens any panel.
  bool has_narrow_panels() const {
    return std::find(narrow_.begin(), narrow_.end(), 1) != narrow_.end();
  }
  /// Computes the sums of a panel with these weights for `rows` rows of the inputs from `first` on,
  /// at most kMostProductRows, in float32 or int32. `sums` has room for [kMostProductRows,
  /// panel_columns()].
  void multiply(const void* weights, const ProductInputs&, std::int64_t first, std::int64_t rows,
                void* sums) const;
  /// Makes outputs of the sums of row `row` of the inputs: out = activation(sums + bias), where the
  /// sums of int8 are scaled first. `bias` is that of the panel's columns, or null.
  void finish(std::int64_t panel, const ProductInputs&, std::int64_t row, const void* sums,
              const float* bias, Activation, float* out) const;

 private:
  // Returns where a panel is stored.
  std::byte* stored(std::int64_t panel) const {
    return memory_.as<std::byte>() + static_cast<std::size_t>(panel) * panel_bytes_;
  }
  // Packs the weights of a panel, which have this type, to where it is stored.
  void store(std::int64_t panel, const void* weights);
  // Packs the weights of a panel in float32, and stores them in float16 if it can.
  void pack_float32(std::int64_t panel, const float* weights, std::byte* room);

  const DType type_;
  const std::int64_t columns_, depth_, panel_columns_, row_multiple_;
  // It is that of ProductLibrary::largest_weight().
  const int largest_;
  const std::shared_ptr<const PanelProduct> product_;
  const std::size_t panel_bytes_;
  Buffer memory_;
  // Says of each panel whether it is stored in float16. They are [panels()].
  std::vector<std::uint8_t> narrow_;
  // They are [n], and there for int8 alone. An offset is kInputOffset times the sum of a row of W.
  std::vector<float> scales_;
  std::vector<std::int32_t> offsets_;
};

}  // namespace xlate::cpu
