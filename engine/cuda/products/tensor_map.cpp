// Encodes tensor maps by the driver.
#include "engine/cuda/products/tensor_map.h"

#include "engine/cuda/handles.h"

namespace xlate::cuda {
namespace {

// The runtime finds the driver's function, because the program is not linked with the driver.
decltype(&cuTensorMapEncodeTiled) find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                         cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) fail("CUDA: the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

}  // namespace

bool has_tensor_map(const Tensor& matrix) {
  const std::int64_t most = std::int64_t{1} << 31;
  return size_of(matrix.dtype) == 2 && matrix.rows > 0 && matrix.rows < most &&
         matrix.columns > 0 && matrix.columns < most &&
         reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 && matrix.stride % 8 == 0 &&
         matrix.stride < most;
}

CUtensorMap tensor_map(const Tensor& matrix, int box_rows) {
  static const auto encode = find_encoder();
  const cuuint64_t size[] = {static_cast<cuuint64_t>(matrix.columns),
                             static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(matrix.stride) * size_of(matrix.dtype)};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows)}, step[] = {1, 1};
  CUtensorMap map{};
  const CUresult status =
      encode(&map,
             matrix.dtype == DType::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                             : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             2, matrix.data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail("CUDA: status {} for the tensor map of a [{}, {}] matrix of {}, rows {} apart",
         static_cast<int>(status), matrix.rows, matrix.columns, name_of(matrix.dtype),
         matrix.stride);
  }
  return map;
}

}  // namespace xlate::cuda
