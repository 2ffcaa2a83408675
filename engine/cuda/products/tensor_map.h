// Describes a matrix of 16-bit floats for the TMA of compute capability 9.0, which reads it in
// boxes of 64 columns with a swizzle of 128 bytes (hopper.cuh). What a box covers outside of the
// matrix reads as zero.
#pragma once

#include <cuda.h>

#include "engine/tensor.h"

namespace xlate::cuda {

/// Returns whether the TMA can read the matrix: it has 16-bit floats, its rows begin at multiples
/// of 16 bytes, and it is not empty.
bool has_tensor_map(const Tensor&);
/// Returns the map of a matrix for which has_tensor_map holds, in boxes of 1 to 256 rows. The call
/// is cheap and does nothing on the device. Throws Error if the driver lacks the function or
/// refuses the matrix.
CUtensorMap tensor_map(const Tensor&, int box_rows = 64);

}  // namespace xlate::cuda
