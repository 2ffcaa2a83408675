// Gemm multiplies matrices by cuBLASLt, which is opened at run time. The algorithm for a product is
// chosen once per shape from the library's heuristic. Only algorithms without split-K are taken, so
// that the sums of a row do not depend on the number of rows.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "engine/activation.h"
#include "engine/backend.h"

namespace xlate::cuda {

class Gemm {
 public:
  /// Throws Error if cuBLASLt cannot be opened.
  Gemm();
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  struct Product {
    Tensor x;                    // [rows, in]
    Tensor weight;               // [out, in]. It has the type of x.
    const void* bias = nullptr;  // [out]. It has the output's type. Null means no bias.
    Tensor out;                  // [rows, out]. It has the type of x or float32.
    // It is kNone or kRelu.
    Activation activation = Activation::kNone;
  };
  /// Computes out = activation(x·Wᵀ + bias), with accumulation in float32. Throws Error if the
  /// library has no algorithm for it, or the activation is another one.
  void run(const Product&, cudaStream_t);
  /// Does what the first `run` of `rows` rows would do besides its product, where `rows` is one of
  /// planned_rows(). It chooses the algorithm, and has its code loaded by a run with the product's
  /// own rows, which may be fewer. Another thread may call it while `run` is called.
  void prepare(const Product&, std::int64_t rows, cudaStream_t);
  /// Returns the numbers of rows that algorithms are chosen for in products of up to `most` rows,
  /// largest first.
  static std::vector<std::int64_t> planned_rows(DType, std::int64_t most);
  /// Returns the name and version of the library.
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
  // Guards plans_. A plan belongs to the thread that makes it until it is in plans_, and from then
  // on to the thread that calls `run`.
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace xlate::cuda
