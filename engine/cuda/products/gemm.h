// Matrix products by cuBLASLt, opened at run time. A product's algorithm is chosen once per shape
// from the library's heuristic, among those that sum the inner dimension in one piece: no split-K,
// so that a row's sum does not depend on how many rows there are.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

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
    Tensor x;                    // [rows, in]
    Tensor weight;               // [out, in], x's type
    const void* bias = nullptr;  // [out] in the output's type; of the epilogues that have one
    Tensor out;                  // [rows, out], x's type or float32
    Epilogue epilogue = Epilogue::kNone;
  };
  /// out = epilogue(x·Wᵀ) with accumulation in float32.
  void run(const Product&, cudaStream_t);
  /// What the first `run` of `rows` rows, one of planned_rows(), would do besides: chooses their
  /// algorithm, and has its code loaded by a run with the product's own rows, which may be fewer.
  /// Another thread may call it beside `run`.
  void prepare(const Product&, std::int64_t rows, cudaStream_t);
  /// The row counts that algorithms are chosen for, of products of up to `most` rows, largest
  /// first.
  static std::vector<std::int64_t> planned_rows(DType, std::int64_t most);
  std::string name() const;

 private:
  struct Api;
  struct Plan;
  using Key = std::tuple<int, int, int, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                         std::int64_t>;
  static std::int64_t rounded(DType, std::int64_t rows);
  static Key key_of(const Product&, std::int64_t rows);
  Plan& plan_of(const Product&, std::int64_t rows);
  std::unique_ptr<Plan> choose(const Product&, std::int64_t rows);
  cublasStatus_t launch(Plan&, const Product&, cudaStream_t);

  std::unique_ptr<Api> api_;
  cublasLtHandle_t handle_ = nullptr;
  std::mutex
      mutex_;  // of plans_; a plan itself is one thread's until it is there, and then that of `run`
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace xlate::cuda
