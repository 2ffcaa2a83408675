// Activations, in float32.
#pragma once

#include "engine/cuda/products/products.h"

namespace xlate::cuda {

__device__ inline float activate(float x, Act activation) {
  switch (activation) {
    case Act::kNone: return x;
    case Act::kRelu: return fmaxf(x, 0.0f);
    case Act::kSwish: return x / (1.0f + __expf(-x));
    case Act::kGelu: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case Act::kGeluTanh: return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace xlate::cuda
