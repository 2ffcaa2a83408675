// OpenBLAS, opened at run time so that the program starts where it is not installed.
#pragma once

#include <cstdint>
#include <string>

namespace xlate::cpu {

class Blas {
 public:
  /// Opens the library and holds it to one thread for each of `threads` callers. Throws Error where
  /// there is none, or where a limit leaves no room for its buffers: it would wait for them for
  /// ever. To be made before other threads take memory.
  explicit Blas(int threads);

  /// out = x·Wᵀ: x [m, k], w [n, k], out [m, n], row-major with the row strides given. May be
  /// called from several threads.
  void product(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
               std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
               std::int64_t out_stride) const;
  /// out = x·W: w [k, n].
  void product_plain(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                     std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                     std::int64_t out_stride) const;
  /// Name, version and kernels, as the library tells them.
  const std::string& name() const { return name_; }

 private:
  using Sgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                         float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                         float* c, int ldc);
  Sgemm sgemm_ = nullptr;
  std::string name_;
};

}  // namespace xlate::cpu
