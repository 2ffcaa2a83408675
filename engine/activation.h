// The activation functions that a product may apply to its outputs. Host code and kernels include
// this file.
#pragma once

namespace xlate {

/// With x an output of the product, kNone is x, kRelu is max(x, 0), kSwish is x·sigmoid(x)
/// (Ramachandran et al. 2017), and kGelu is x·Φ(x) with the normal distribution's Φ (Hendrycks and
/// Gimpel 2016), which kGeluTanh approximates by a hyperbolic tangent. The underlying type is int,
/// as wide as a register of a GPU, because kernels read it from their arguments and from memory
/// without a conversion.
enum class Activation : int { kNone, kRelu, kSwish, kGelu, kGeluTanh };

}  // namespace xlate
