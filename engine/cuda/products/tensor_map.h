// How the copy engine of compute capability 9.0 reads a matrix of 16-bit floats: in boxes of 64
// columns, swizzled by 128 bytes (hopper.cuh). What a box covers outside of the matrix reads as
// zero.
#pragma once

#include <cuda.h>

#include "engine/tensor.h"

namespace xlate::cuda {

/// Whether the copy engine can read it: 16-bit floats whose rows begin at multiples of 16 bytes.
bool has_tensor_map(const Tensor&);
/// The matrix must have one; boxes are of so many rows, 1 to 256. Cheap, and nothing on the device.
/// Throws Error where the driver does not have the call.
CUtensorMap tensor_map(const Tensor&, int box_rows = 64);

}  // namespace xlate::cuda
