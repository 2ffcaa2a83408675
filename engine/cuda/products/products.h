// Declares the epilogue of a product, for where cuBLASLt does not apply it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/activation.h"

namespace xlate::cuda {

/// out = activation(out + bias).
template <class T, class B = T>
struct EpilogueArgs {
  const B* bias;  // [columns]. It may be null.
  T* out;         // [N, columns]
  std::int64_t rows, columns, out_stride;
  Activation activation;
};
template <class T, class B>
void apply_epilogue(const EpilogueArgs<T, B>&, cudaStream_t);

/// Computes out = activation(the first half of x) · the second half of x.
template <class T>
struct GateArgs {
  const T* x;  // [N, 2·columns]
  T* out;      // [N, columns]
  std::int64_t rows, columns, x_stride, out_stride;
  Activation activation;
};
template <class T>
void apply_gate(const GateArgs<T>&, cudaStream_t);

}  // namespace xlate::cuda
