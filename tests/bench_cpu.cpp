// Measures what the processor can do and what the products of the CPU backend reach of it:
// multiplications with vector registers, reading of memory, and products with panels of weights
// that lie in the second cache or come from memory. A panel has the shape that PackedMatrix
// chooses.
//   bench_cpu [THREADS]
// It prints two tables in Markdown. All figures are of all threads together.
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "engine/backend.h"
#include "engine/cpu/loops.h"
#include "engine/cpu/products/packed_matrix.h"

namespace xlate::cpu {
namespace {

constexpr int kRepeats = 5;
// So many sums are computed beside one another, because each waits for the one before it.
constexpr int kSums = 12;
constexpr std::int64_t kLoops = 4'000'000;

// Runs `work` in all threads at once. Returns the seconds of the fastest of kRepeats runs, from the
// first thread's beginning to the last one's end.
double seconds_of(int threads, const std::function<void(int)>& work) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::barrier together(threads);
    std::vector<Clock::time_point> begun(static_cast<std::size_t>(threads)), ended = begun;
    std::vector<std::jthread> running;
    for (int i = 0; i < threads; ++i) {
      running.emplace_back([&, i] {
        together.arrive_and_wait();
        begun[static_cast<std::size_t>(i)] = Clock::now();
        work(i);
        ended[static_cast<std::size_t>(i)] = Clock::now();
      });
    }
    running.clear();
    best = std::min(best, std::chrono::duration<double>(*std::ranges::max_element(ended) -
                                                        *std::ranges::min_element(begun))
                              .count());
  }
  return best;
}

// Each of these adds products of whole registers kLoops · kSums times. The empty assembler
// statement keeps the compiler from computing less.
__attribute__((target("avx512f"))) void multiply_float32(int) {
  __m512 sums[kSums], factor = _mm512_set1_ps(0.5f);
#pragma GCC unroll 16
  for (__m512& sum : sums) sum = factor;
  for (std::int64_t i = 0; i < kLoops; ++i) {
#pragma GCC unroll 16
    for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx2,fma"))) void multiply_float32_avx2(int) {
  __m256 sums[kSums], factor = _mm256_set1_ps(0.5f);
#pragma GCC unroll 16
  for (__m256& sum : sums) sum = factor;
  for (std::int64_t i = 0; i < kLoops; ++i) {
#pragma GCC unroll 16
    for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx512f,avx512bf16"))) void multiply_bfloat16(int) {
  const auto factor = (__m512bh)_mm512_set1_epi16(0x3f00);
  __m512 sums[kSums];
#pragma GCC unroll 16
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (std::int64_t i = 0; i < kLoops; ++i) {
#pragma GCC unroll 16
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx512f,avx512vnni"))) void multiply_int8(int) {
  const __m512i factor = _mm512_set1_epi8(1);
  __m512i sums[kSums];
#pragma GCC unroll 16
  for (__m512i& sum : sums) sum = factor;
  for (std::int64_t i = 0; i < kLoops; ++i) {
#pragma GCC unroll 16
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
}

// Returns the multiplications and additions per second of vector registers, or nothing where the
// processor has no instructions for the type.
std::optional<double> vector_peak(DType type, int threads) {
  const auto rate = [&](void (*work)(int), int operations) {
    return static_cast<double>(kLoops * kSums * operations * threads) / seconds_of(threads, work);
  };
  switch (type) {
    case DType::kFloat32:
      if (__builtin_cpu_supports("avx512f")) return rate(multiply_float32, 32);
      if (__builtin_cpu_supports("fma")) return rate(multiply_float32_avx2, 16);
      return {};
    case DType::kBFloat16:
      if (__builtin_cpu_supports("avx512bf16")) return rate(multiply_bfloat16, 64);
      return {};
    default:
      if (__builtin_cpu_supports("avx512vnni")) return rate(multiply_int8, 128);
      return {};
  }
}

// Returns the bytes per second at which each thread reads memory of its own.
double read_rate(std::size_t bytes, int threads) {
  std::vector<std::vector<float>> memory(static_cast<std::size_t>(threads));
  for (std::vector<float>& each : memory) each.assign(bytes / sizeof(float), 1.0f);
  const auto passes = std::max<std::size_t>(1, (std::size_t{1} << 29) / bytes);
  const double seconds = seconds_of(threads, [&](int thread) {
    const std::vector<float>& each = memory[static_cast<std::size_t>(thread)];
    for (std::size_t i = 0; i < passes; ++i)
      if (has_overflow(each.data(), std::ssize(each))) std::abort();
  });
  return static_cast<double>(bytes * passes) * threads / seconds;
}

// Holds `count` packed panels of weights that are 0, which products take as long for as for others.
struct Panels {
  Panels(ProductLibrary& library, DType type, std::int64_t depth, std::size_t count)
      : product(library.panel_product(type, PackedMatrix::kMostColumns, depth)),
        count(count),
        stride((product->packed_bytes() + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment),
        memory(static_cast<std::byte*>(std::aligned_alloc(kPanelAlignment, stride * count))) {
    const std::vector<std::byte> weights(static_cast<std::size_t>(depth) *
                                         PackedMatrix::kMostColumns * size_of(type));
    for (std::size_t i = 0; i < count; ++i)
      product->pack(weights.data(), memory.get() + i * stride);
  }
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::shared_ptr<const PanelProduct> product;
  std::size_t count, stride;
  std::unique_ptr<std::byte, Free> memory;
};

// Returns the operations per second of products of `rows` rows. Each thread takes the panels in
// turn; a single panel it takes again and again.
double product_rate(const Panels& panels, DType type, std::int64_t depth, std::int64_t rows,
                    int threads) {
  const std::int64_t calls = panels.count > 1 ? static_cast<std::int64_t>(panels.count) : 4000;
  const std::vector<std::byte> inputs(static_cast<std::size_t>(rows * depth) * size_of(type));
  std::vector<std::vector<float>> outputs(
      static_cast<std::size_t>(threads),
      std::vector<float>(static_cast<std::size_t>(rows * PackedMatrix::kMostColumns)));
  const double seconds = seconds_of(threads, [&](int thread) {
    for (std::int64_t i = thread; i < calls; i += threads)
      panels.product->multiply(
          rows, inputs.data(),
          panels.memory.get() + static_cast<std::size_t>(i) % panels.count * panels.stride,
          outputs[static_cast<std::size_t>(thread)].data());
  });
  return 2.0 * static_cast<double>(rows * depth * PackedMatrix::kMostColumns * calls) / seconds;
}

void run(int threads) {
  std::printf("%s, %d threads\n\n", processor_name().c_str(), threads);
  std::puts("| reading, memory of a thread | GB/s |\n| ---: | ---: |");
  for (const std::size_t mebibytes : {1, 16, 256})
    std::printf("| %zu MiB | %.0f |\n", mebibytes, read_rate(mebibytes << 20, threads) / 1e9);
  std::puts(
      "\n| type | vectors, GFLOP/s | depth | rows | panel in the cache | share | panels from "
      "memory | share |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
  const std::unique_ptr<ProductLibrary> library = open_product_library();
  for (const DType type : {DType::kFloat32, DType::kBFloat16, DType::kInt8}) {
    const std::optional<double> peak = vector_peak(type, threads);
    if (!library->has(type)) continue;
    for (const std::int64_t depth : {512, 2048}) {
      const auto bytes =
          static_cast<std::size_t>(depth) * PackedMatrix::kMostColumns * size_of(type);
      const Panels one(*library, type, depth, 1),
          many(*library, type, depth, (std::size_t{160} << 20) / bytes);
      for (const std::int64_t rows : {16, 64}) {
        const double cached = product_rate(one, type, depth, rows, threads),
                     streamed = product_rate(many, type, depth, rows, threads);
        const auto share = [&](double rate) { return peak ? rate / *peak : 0; };
        std::printf("| %s | %.0f | %ld | %ld | %.0f | %.2f | %.0f | %.2f |\n", name_of(type),
                    peak.value_or(0) / 1e9, depth, rows, cached / 1e9, share(cached),
                    streamed / 1e9, share(streamed));
      }
    }
  }
}

}  // namespace
}  // namespace xlate::cpu

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  if (threads < 1) {
    std::fputs("usage: bench_cpu [THREADS]\n", stderr);
    return 2;
  }
  xlate::cpu::run(threads);
}
