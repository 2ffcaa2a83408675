// Multiplies matrices by OpenBLAS. The library is opened at run time, so that the program also
// starts where it is not installed.
#pragma once

#include <cstdint>
#include <string>

namespace xlate::cpu {

class Blas {
 public:
  /// Opens the library and restricts it to one thread for each of the `threads` callers. Throws
  /// Error if the library cannot be opened, or if a memory limit leaves no room for its buffers,
  /// since it would then wait for them for ever. It must be constructed before other threads take
  /// memory.
  explicit Blas(int threads);

  /// Computes out = x·Wᵀ with x [m, k], w [n, k] and out [m, n], all row-major with the given row
  /// strides. Several threads may call it at the same time.
  void product(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
               std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
               std::int64_t out_stride) const;
  /// Computes out = x·W with w [k, n]. Everything else is as for `product`.
  void product_plain(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                     std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                     std::int64_t out_stride) const;
  /// Returns the library's name and version, and the kernels that it has chosen, as it reports
  /// them.
  const std::string& name() const { return name_; }

 private:
  using Sgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                         float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                         float* c, int ldc);
  Sgemm sgemm_ = nullptr;
  std::string name_;
};

}  // namespace xlate::cpu
