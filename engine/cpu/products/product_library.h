// Declares the products that the CPU backend takes from a library: those of a few rows with a panel
// of packed weights. engine/cpu/products/onednn.cpp implements them in a module of its own, which
// is opened at run time, so that the program also starts where the library is not installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/tensor.h"

namespace xlate::cpu {

/// A product has at most this many rows. Its inputs then stay in the processor's second cache
/// beside the panel.
inline constexpr std::int64_t kMostProductRows = 64;
/// Inputs of int8 are unsigned: this is added to each. The processor multiplies unsigned bytes by
/// signed ones, and the library would have to add it again and again. So each sum is too large by
/// this times the sum of its weights, which finish_row() takes off.
inline constexpr std::int32_t kInputOffset = 128;
/// Packed panels begin at multiples of this number of bytes.
inline constexpr std::size_t kPanelAlignment = 64;

/// Computes products with panels of one shape and type. In shapes d is the depth, which is the
/// number of columns of the inputs, and n the number of columns of the outputs. All functions may
/// be called by several threads at the same time. They throw Error if the library fails, and
/// OutOfMemory if it has too little memory.
class PanelProduct {
 public:
  virtual ~PanelProduct() = default;
  /// Returns the number of bytes of a packed panel.
  virtual std::size_t packed_bytes() const = 0;
  /// Writes weights [n, d] of the type, whose rows lie next to each other, to `packed` in the
  /// layout that multiply() reads.
  virtual void pack(const void* weights, void* packed) const = 0;
  /// Computes out = x·Wᵀ with packed weights for `rows` rows, from 1 to kMostProductRows; x
  /// [rows, d] of the type, but unsigned if it is int8; out [rows, n] in float32, or in int32 if
  /// the type is int8. The rows of each lie next to each other. A row's result depends on `rows`
  /// only as ProductLibrary::row_multiple() says. Where the layout has padding, the library may
  /// write its zeros again.
  virtual void multiply(std::int64_t rows, const void* x, const void* packed, void* out) const = 0;
};

/// Opens the products of a library. Functions may be called by several threads at the same time.
class ProductLibrary {
 public:
  virtual ~ProductLibrary() = default;
  /// Returns the library's name and version, and the instructions that it uses.
  virtual std::string name() const = 0;
  /// Returns whether the processor computes with this type, without emulating it.
  virtual bool has(DType) const = 0;
  /// A row's result is the same, bit for bit, in all products whose number of rows is a multiple of
  /// this. With other numbers the library may choose code that sums in another order.
  virtual std::int64_t row_multiple(DType) const = 0;
  /// Returns the largest magnitude that weights of int8 may have: 127, or 63 where the processor
  /// adds pairs of products of bytes in 16 bits, which overflow with larger ones.
  virtual int largest_weight() const = 0;
  /// Returns the products with panels [n, d] of the type: float32, bfloat16 or int8.
  virtual std::shared_ptr<const PanelProduct> panel_product(DType, std::int64_t n,
                                                            std::int64_t d) = 0;
};

/// Opens the module with the library. It stays open, because threads may still be inside it at
/// exit. Throws Error if the module or the library cannot be opened.
std::unique_ptr<ProductLibrary> open_product_library();

/// These are the name and the type of the function that the module exports.
inline constexpr const char* kMakeProductLibrary = "xlate_make_product_library";
using MakeProductLibrary = ProductLibrary* (*)();

}  // namespace xlate::cpu
