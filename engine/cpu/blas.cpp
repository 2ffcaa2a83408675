// Opens OpenBLAS, takes its buffers while a refusal can still be reported, and calls its sgemm.
#include "engine/cpu/blas.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdlib>
#include <vector>

#include "engine/error.h"
#include "engine/limits.h"

namespace xlate::cpu {
namespace {

constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;
// The library maps this many bytes for each product that runs at the same time as others (its
// BUFFER_SIZE). Most of them are never touched.
constexpr std::size_t kBufferBytes = std::size_t{128} << 20;

void* open_library() {
  // The library's constructor reads this variable. Without it, the library would start a thread for
  // each core.
  setenv("OPENBLAS_NUM_THREADS", "1", 1);
  std::string tried;
  for (const char* file : {"libopenblas.so.0", "libopenblas.so"}) {
    if (void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL)) return library;
    tried = dlerror();
  }
  fail(
      "the CPU backend needs OpenBLAS (libopenblas.so.0; Debian and Ubuntu: apt install "
      "libopenblas0-pthread): {}{}",
      tried, memory_limits());
}

// Throws Error if the system would not give a buffer to each of the threads.
void check_room(int threads) {
  std::vector<void*> buffers;
  buffers.reserve(static_cast<std::size_t>(threads));
  while (buffers.size() < static_cast<std::size_t>(threads)) {
    void* buffer =
        mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) break;
    buffers.push_back(buffer);
  }
  for (void* buffer : buffers) munmap(buffer, kBufferBytes);
  if (buffers.size() < static_cast<std::size_t>(threads)) {
    fail(
        "--threads {}: OpenBLAS needs {} kB of address space for each thread, and there is room "
        "for {}{}; fewer --threads or a larger limit make it fit",
        threads, kBufferBytes / 1024, buffers.size(), memory_limits());
  }
}

// The library maps a buffer when more products run at a time than before. If the system refuses,
// the library asks again for ever. Under a memory limit all buffers are therefore mapped here,
// where a refusal can still be reported. The library keeps them for later products.
void take_buffers(void* library, int threads) {
  if (!memory_is_limited()) return;
  check_room(threads);
  const auto take = reinterpret_cast<void* (*)(int)>(dlsym(library, "blas_memory_alloc"));
  const auto give_back = reinterpret_cast<void (*)(void*)>(dlsym(library, "blas_memory_free"));
  // Another build of the library may lack these functions. Then the check for room must suffice.
  if (!take || !give_back) return;
  std::vector<void*> buffers;
  for (int i = 0; i < threads; ++i) buffers.push_back(take(0));
  for (void* buffer : buffers) {
    if (buffer) give_back(buffer);
  }
}

}  // namespace

Blas::Blas(int threads) {
  // The library stays open, because threads may still be inside it at exit.
  void* library = open_library();
  sgemm_ = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  if (!sgemm_) fail("libopenblas.so.0 has no cblas_sgemm");
  if (auto set_threads =
          reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads")))
    set_threads(1);
  take_buffers(library, threads);
  const auto config = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_config"));
  const auto core = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_corename"));
  std::string text = config ? config() : "OpenBLAS";
  if (const auto space = text.find(' ', text.find(' ') + 1); space != std::string::npos)
    text.resize(space);
  name_ = core ? fmt::format("{} ({})", text, core()) : text;
}

void Blas::product(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                   std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                   std::int64_t out_stride) const {
  sgemm_(kRowMajor, kPlain, kTransposed, static_cast<int>(m), static_cast<int>(n),
         static_cast<int>(k), 1.0f, x, static_cast<int>(x_stride), w, static_cast<int>(w_stride),
         0.0f, out, static_cast<int>(out_stride));
}

void Blas::product_plain(std::int64_t m, std::int64_t n, std::int64_t k, const float* x,
                         std::int64_t x_stride, const float* w, std::int64_t w_stride, float* out,
                         std::int64_t out_stride) const {
  sgemm_(kRowMajor, kPlain, kPlain, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k),
         1.0f, x, static_cast<int>(x_stride), w, static_cast<int>(w_stride), 0.0f, out,
         static_cast<int>(out_stride));
}

}  // namespace xlate::cpu
