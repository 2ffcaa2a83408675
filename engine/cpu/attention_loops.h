// Declares the inner loops of attention on the CPU. They are written with vectors, and compiled for
// several instruction sets, of which one is chosen when it is first needed.
#pragma once

#include <cstdint>

#include "engine/tensor.h"

namespace xlate::cpu {

/// Views keys that one row attends to, with the values behind them. keys[t] points at the key of
/// token t: `key_heads` heads of `head` columns each. Its value of the same shape begins key_heads
/// · head elements behind it.
struct KeyRows {
  const void* const* keys;
  // It is float32 or bfloat16.
  DType type;
  // There are n of them.
  std::int64_t count;
  std::int64_t key_heads, head;
  // So many consecutive heads of queries share a head of keys.
  std::int64_t group;
};

/// Has the functions for an instruction set. Each result is summed in an order that depends on
/// nothing but the shape of what is summed, so that a row has the same bits in any batch.
struct AttentionLoops {
  /// Computes out = a·b with a [m, k], b [k, n] and out [m, n], with the given row strides.
  void (*multiply)(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                   std::int64_t a_stride, const float* b, std::int64_t b_stride, float* out,
                   std::int64_t out_stride);
  /// Computes out = xᵀ with x [rows, columns] and out [columns, rows], with the given row strides.
  void (*transpose)(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t columns,
                    float* out, std::int64_t out_stride);
  /// Computes the dot products of the heads of a query with their keys: scores [heads, n]. There
  /// must be room for as many floats as the query has.
  void (*score)(const float* query, const KeyRows&, float* room, float* scores);
  /// Computes the sums of the values by their weights [heads, n]: out [heads, head].
  void (*mix)(const float* weights, const KeyRows&, float* out);
};

/// Returns the functions for the processor.
const AttentionLoops& attention_loops();
/// Returns those for an instruction set that the processor has, as instruction_set() (loops.h)
/// names it.
const AttentionLoops& attention_loops(const char* set);

}  // namespace xlate::cpu
