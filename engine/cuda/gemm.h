// Matrix products by cuBLASLt, opened at run time. A product's algorithm is chosen once per shape from the library's heuristic, among
// those that sum the inner dimension in one piece: no split-K, so that a row's sum does not depend on how many rows there are.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "engine/backend.h"

namespace xlate::cuda {

class Gemm {
 public:
  /// Throws Error where cuBLASLt cannot be opened.
  Gemm();
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  enum class Epilogue : int { kNone, kBias, kBiasRelu };
  struct Product {
    Tensor x;                      // [rows, in]
    Tensor weight;                 // [out, in], x's type
    const void* bias = nullptr;    // [out] in the output's type; of the epilogues that have one
    Tensor residual;               // [rows, out] in the output's type, added; or empty
    Tensor out;                    // [rows, out], x's type or float32
    Epilogue epilogue = Epilogue::kNone;
  };
  /// out = epilogue(x·Wᵀ) with accumulation in float32.
  void run(const Product&, cudaStream_t);
  std::string name() const;

 private:
  struct Api;
  struct Plan;
  using Key = std::tuple<int, int, int, int, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  static std::int64_t rounded(const Product&);
  Plan& plan_of(const Product&, std::int64_t rows);
  void choose(Plan&, const Product&, std::int64_t rows);
  cublasStatus_t launch(Plan&, const Product&, cudaStream_t);

  std::unique_ptr<Api> api_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace xlate::cuda
