// What follows a product where cuBLASLt does not do it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/activation.h"

namespace xlate::cuda {

/// out = activation(out) + residual; the residual may be null.
template <class T>
struct FinishArgs {
  const T* residual;  // [N, columns]
  T* out;             // [N, columns]
  std::int64_t rows, columns, residual_stride, out_stride;
  Activation activation;
};
template <class T>
void finish_rows(const FinishArgs<T>&, cudaStream_t);

}  // namespace xlate::cuda
