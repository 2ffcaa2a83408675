// Implements the products by cuBLASLt: opens the library, chooses algorithms, and launches them.
#include "engine/cuda/products/gemm.h"

#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <source_location>

#include "engine/cuda/handles.h"
#include "engine/error.h"
#include "engine/limits.h"

namespace xlate::cuda {
namespace {

// Products have no workspace. Algorithms that need one are those that split the inner dimension,
// which are not wanted, and two streams that run at the same time could not share it.
constexpr std::size_t kWorkspace = 0;

void check_blas(cublasStatus_t status,
                std::source_location where = std::source_location::current()) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("cuBLASLt: status {}, at gemm.cpp:{}", static_cast<int>(status), where.line());
}

cudaDataType_t type_of(DType type) {
  switch (type) {
    case DType::kFloat16:
      return CUDA_R_16F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

}  // namespace

#define XLATE_CUBLASLT_FUNCTIONS(X)       \
  X(cublasLtCreate)                       \
  X(cublasLtDestroy)                      \
  X(cublasLtGetVersion)                   \
  X(cublasLtMatmul)                       \
  X(cublasLtMatmulAlgoGetHeuristic)       \
  X(cublasLtMatmulDescCreate)             \
  X(cublasLtMatmulDescDestroy)            \
  X(cublasLtMatmulDescSetAttribute)       \
  X(cublasLtMatrixLayoutCreate)           \
  X(cublasLtMatrixLayoutDestroy)          \
  X(cublasLtMatrixLayoutSetAttribute)     \
  X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulPreferenceDestroy)      \
  X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatmulAlgoConfigGetAttribute)

struct Gemm::Api {
#define XLATE_DECLARE(name) decltype(&::name) name = nullptr;
  XLATE_CUBLASLT_FUNCTIONS(XLATE_DECLARE)
#undef XLATE_DECLARE
};

struct Gemm::Plan {
  const Api* api = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  // This is the number of rows that the layouts of x and out have at present.
  std::int64_t rows = 0;
  ~Plan() {
    for (const cublasLtMatrixLayout_t layout : {weight, x, out}) {
      if (layout) api->cublasLtMatrixLayoutDestroy(layout);
    }
    if (operation) api->cublasLtMatmulDescDestroy(operation);
  }
};

Gemm::Gemm() : api_(std::make_unique<Api>()) {
  void* library = nullptr;
  std::string tried;
  for (const char* file : {"libcublasLt.so." XLATE_CUBLASLT_MAJOR, "libcublasLt.so"}) {
    library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library) break;
    tried = dlerror();
  }
  if (!library)
    fail("the CUDA backend needs cuBLASLt (libcublasLt.so.{}, of the CUDA toolkit): {}{}",
         XLATE_CUBLASLT_MAJOR, tried, memory_limits());
#define XLATE_FIND(name)                                                             \
  if (!(api_->name = reinterpret_cast<decltype(api_->name)>(dlsym(library, #name)))) \
    fail("libcublasLt.so.{} has no {}", XLATE_CUBLASLT_MAJOR, #name);
  XLATE_CUBLASLT_FUNCTIONS(XLATE_FIND)
#undef XLATE_FIND
  check_blas(api_->cublasLtCreate(&handle_));
}

Gemm::~Gemm() {
  plans_.clear();
  api_->cublasLtDestroy(handle_);
}

std::string Gemm::name() const { return fmt::format("cuBLASLt {}", api_->cublasLtGetVersion()); }

// Returns the number of rows for which the algorithm of a product is chosen. There are few
// different ones, because a query of the heuristic and the first use of an algorithm, which loads
// its code, cost 2 ms, as much as a decoding step. In float32 the library's algorithms sum the
// inner dimension in different orders. One algorithm is therefore used for all numbers of rows, so
// that a row has the same bits in every batch.
std::int64_t Gemm::rounded(DType type, std::int64_t rows) {
  constexpr std::int64_t kUsualRows = 2048;
  if (type == DType::kFloat32) return kUsualRows;
  for (const std::int64_t few : {64, 256, 1024}) {
    if (rows <= few) return few;
  }
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
}

std::vector<std::int64_t> Gemm::planned_rows(DType type, std::int64_t most) {
  std::vector<std::int64_t> list;
  for (std::int64_t rows = 1; list.empty() || list.back() < most; rows = list.back() + 1) {
    if (!list.empty() && rounded(type, rows) == list.back()) break;
    list.push_back(rounded(type, rows));
  }
  std::reverse(list.begin(), list.end());
  return list;
}

Gemm::Key Gemm::key_of(const Product& product, std::int64_t rows) {
  return {static_cast<int>(product.x.dtype),
          static_cast<int>(product.out.dtype),
          2 * static_cast<int>(product.activation) + (product.bias ? 1 : 0),
          rows,
          product.weight.rows,
          product.x.columns,
          product.x.stride,
          product.out.stride};
}

Gemm::Plan& Gemm::plan_of(const Product& product, std::int64_t rows) {
  const Key key = key_of(product, rows);
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = plans_.find(key); found != plans_.end()) return *found->second;
  }
  auto plan = choose(product, rows);
  const std::lock_guard lock(mutex_);
  return *plans_.try_emplace(key, std::move(plan)).first->second;
}

void Gemm::prepare(const Product& product, std::int64_t rows, cudaStream_t stream) {
  const Key key = key_of(product, rows);
  {
    const std::lock_guard lock(mutex_);
    if (plans_.contains(key)) return;
  }
  auto plan = choose(product, rows);
  const cublasStatus_t status = launch(*plan, product, stream);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_blas(status);
  const std::lock_guard lock(mutex_);
  plans_.try_emplace(key, std::move(plan));
}

// cuBLASLt stores matrices by columns, so that its result [out, rows] is [rows, out] here.
std::unique_ptr<Gemm::Plan> Gemm::choose(const Product& product, std::int64_t rows) {
  auto chosen = std::make_unique<Plan>();
  Plan& plan = *chosen;
  plan.api = api_.get();
  const cudaDataType_t in = type_of(product.x.dtype), out = type_of(product.out.dtype);
  check_blas(api_->cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check_blas(
        api_->cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  const bool relu = product.activation == Activation::kRelu;
  if (product.activation != Activation::kNone && !relu)
    fail("cuBLASLt: a product with another activation than ReLU");
  if (product.bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  } else if (relu) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU);
  }
  const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  plan.rows = rows;
  check_blas(api_->cublasLtMatrixLayoutCreate(&plan.weight, in, u(product.weight.columns),
                                              u(product.weight.rows), product.weight.stride));
  check_blas(api_->cublasLtMatrixLayoutCreate(&plan.x, in, u(product.x.columns), u(plan.rows),
                                              product.x.stride));
  check_blas(api_->cublasLtMatrixLayoutCreate(&plan.out, out, u(product.weight.rows), u(plan.rows),
                                              product.out.stride));

  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(api_->cublasLtMatmulPreferenceCreate(&preference));
  const std::uint64_t workspace = kWorkspace;
  const std::uint32_t in_one_piece = CUBLASLT_REDUCTION_SCHEME_NONE;
  api_->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof(workspace));
  api_->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                             &in_one_piece, sizeof(in_one_piece));
  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  const cublasStatus_t status =
      api_->cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.weight, plan.x, plan.out,
                                           plan.out, preference, 8, found, &count);
  api_->cublasLtMatmulPreferenceDestroy(preference);
  check_blas(status);
  for (int i = 0; i < count; ++i) {
    std::int32_t splits = 1;
    std::size_t written = 0;
    api_->cublasLtMatmulAlgoConfigGetAttribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                               &splits, sizeof(splits), &written);
    if (found[i].state != CUBLAS_STATUS_SUCCESS || splits > 1) continue;
    plan.algorithm = found[i].algo;
    return chosen;
  }
  fail("cuBLASLt: no algorithm for a product of [{}, {}] and [{}, {}] in {}", product.x.rows,
       product.x.columns, product.weight.rows, product.weight.columns, name_of(product.x.dtype));
}

void Gemm::run(const Product& product, cudaStream_t stream) {
  const std::int64_t rows = rounded(product.x.dtype, product.x.rows);
  cublasStatus_t status = launch(plan_of(product, rows), product, stream);
  // If rows are not aligned, an algorithm may not serve other numbers of rows than the one that it
  // was chosen for.
  if (status == CUBLAS_STATUS_NOT_SUPPORTED && rows != product.x.rows)
    status = launch(plan_of(product, product.x.rows), product, stream);
  check_blas(status);
}

cublasStatus_t Gemm::launch(Plan& plan, const Product& product, cudaStream_t stream) {
  if (plan.rows != product.x.rows) {
    plan.rows = product.x.rows;
    const auto rows = static_cast<std::uint64_t>(plan.rows);
    for (const cublasLtMatrixLayout_t layout : {plan.x, plan.out}) {
      check_blas(api_->cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &rows,
                                                        sizeof(rows)));
    }
  }
  if (product.bias) {
    check_blas(api_->cublasLtMatmulDescSetAttribute(
        plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product.bias, sizeof(product.bias)));
  }
  const float one = 1, zero = 0;
  return api_->cublasLtMatmul(handle_, plan.operation, &one, product.weight.data, plan.weight,
                              product.x.data, plan.x, &zero, product.out.data, plan.out,
                              product.out.data, plan.out, &plan.algorithm, nullptr, kWorkspace,
                              stream);
}

}  // namespace xlate::cuda
