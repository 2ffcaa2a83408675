// Copies by kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/table_update.h"

namespace xlate::cuda {

/// Copies from pinned host memory. False where it is not made of aligned 4-byte words.
bool copy_from_host(const void* host, void* device, std::size_t bytes, cudaStream_t);
/// table[place] = value; the changes may lie in pinned host memory.
void update_table(const TableUpdate*, std::int64_t count, std::int32_t* table, cudaStream_t);
/// out = in, converted.
template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t);

}  // namespace xlate::cuda
