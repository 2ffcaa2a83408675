// What the outputs of a product go through. Host code and kernels include it.
#pragma once

namespace xlate {

/// As wide as a register: kernels read it as it lies.
enum class Activation : int { kNone, kRelu, kSwish, kGelu, kGeluTanh };

}  // namespace xlate
