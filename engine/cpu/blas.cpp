#include "engine/cpu/blas.h"

#include <dlfcn.h>

#include <cstdlib>

#include "engine/error.h"

namespace xlate::cpu {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;

void* open_library() {
  // Read by the library's constructor: without it, it would start a thread for each core.
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  std::string tried;
  for (const char* file : {"libopenblas.so.0", "libopenblas.so"}) {
    if (void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL)) return library;
    tried = dlerror();
  }
  fail("the CPU backend needs OpenBLAS (libopenblas.so.0; Debian and Ubuntu: apt install libopenblas0-pthread): {}", tried);
}

}  // namespace

Blas::Blas() {
  void* library = open_library();  // stays open: threads may still be inside at exit
  sgemm_ = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  if (!sgemm_) fail("libopenblas.so.0 has no cblas_sgemm");
  if (auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"))) set_threads(1);
  const auto config = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_config"));
  const auto core = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_corename"));
  std::string text = config ? config() : "OpenBLAS";
  if (const auto space = text.find(' ', text.find(' ') + 1); space != std::string::npos) text.resize(space);
  name_ = core ? fmt::format("{} ({})", text, core()) : text;
}

void Blas::product(std::int64_t m, std::int64_t n, std::int64_t k, const float* x, std::int64_t x_stride, const float* w,
                   std::int64_t w_stride, float* out, std::int64_t out_stride) const {
  sgemm_(kRowMajor, kPlain, kTransposed, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), 1.0f, x,
         static_cast<int>(x_stride), w, static_cast<int>(w_stride), 0.0f, out, static_cast<int>(out_stride));
}

void Blas::product_plain(std::int64_t m, std::int64_t n, std::int64_t k, const float* x, std::int64_t x_stride, const float* w,
                         std::int64_t w_stride, float* out, std::int64_t out_stride) const {
  sgemm_(kRowMajor, kPlain, kPlain, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), 1.0f, x,
         static_cast<int>(x_stride), w, static_cast<int>(w_stride), 0.0f, out, static_cast<int>(out_stride));
}

}  // namespace xlate::cpu
