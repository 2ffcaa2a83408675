// Converts a Tensor to the typed pointers and views that kernels take.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "engine/cuda/views.h"
#include "engine/error.h"
#include "engine/tensor.h"

namespace xlate::cuda {

/// Calls `body` with a value of the C++ type that corresponds to `type`. Throws Error if kernels do
/// not compute in this type.
template <class Body>
void with_type(DType type, const Body& body) {
  switch (type) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat16:
      return body(__half{});
    case DType::kBFloat16:
      return body(__nv_bfloat16{});
    case DType::kInt8:
      break;
  }
  fail("CUDA: {} is not a type to compute in", name_of(type));
}

template <class T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

/// Returns the view of rows of the residual stream. T may be const.
template <class T>
ResidualView<T> residual_view(const ResidualRows& wide) {
  return {static_cast<T*>(wide.rounded.data),
          static_cast<decltype(ResidualView<T>::low_bits)>(wide.low_bits.data), wide.rounded.stride,
          wide.low_bits.stride};
}

/// Returns whether these norms of an AddNorm are those of a post-norm network: a layer norm with a
/// shift after the sublayer, and no norm before the next one.
inline bool fusable(const Norm& after, const Norm& before) {
  return after && after.shift && after.kind == NormKind::kLayer && !before;
}

/// Returns whether the kernel that fuses a product with its norm (norms/linear_norm.cuh) computes
/// these norms of an AddNorm, whatever their shapes: those of a post-norm network, or those of a
/// pre-norm network, which has any norm before the next sublayer and none after this one.
inline bool fusable_with_product(const Norm& after, const Norm& before) {
  return fusable(after, before) || (before && !after);
}

}  // namespace xlate::cuda
