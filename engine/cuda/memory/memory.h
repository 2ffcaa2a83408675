// Declares the copies that kernels make.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/table_update.h"

namespace xlate::cuda {

/// Copies from pinned host memory. Returns false, and does nothing, if there are no bytes or they
/// are not aligned 4-byte words.
bool copy_from_host(const void* host, void* device, std::size_t bytes, cudaStream_t);
/// Sets table[index] = value for each update. The updates may lie in pinned host memory.
void update_table(const TableUpdate*, std::int64_t count, std::int32_t* table, cudaStream_t);
/// Converts `count` floats to T.
template <class T>
void convert(const float* in, T* out, std::int64_t count, cudaStream_t);

}  // namespace xlate::cuda
