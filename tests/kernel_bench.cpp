// Times what a copy and a large product reach on a GPU, and writes the table of all timings.
#include "tests/kernel_bench.h"

#include <cuda_runtime_api.h>

#include <ostream>

namespace xlate::test {
namespace {

void require(cudaError_t status) {
  if (status != cudaSuccess) fail("CUDA: {}", cudaGetErrorString(status));
}

}  // namespace

void Bench::measure_ceilings() {
  constexpr std::size_t bytes = std::size_t{1} << 30;
  constexpr int copies = 8;
  const Buffer from = backend_->allocate(bytes), to = backend_->allocate(bytes);
  cudaEvent_t begin = nullptr, end = nullptr;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  std::vector<double> rates;
  for (int i = 0; i < kIntervals + 1; ++i) {
    require(cudaEventRecord(begin));
    for (int n = 0; n < copies; ++n)
      require(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice));
    require(cudaEventRecord(end));
    require(cudaEventSynchronize(end));
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i > 0)
      rates.push_back(2.0 * static_cast<double>(bytes) * copies /
                      (static_cast<double>(milliseconds) * 1e-3));
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  copy_rate_ = median(rates);

  constexpr std::int64_t side = 8192;
  const Buffer x = numbers(side * side), w = numbers(side * side),
               y = backend_->allocate(static_cast<std::size_t>(side * side * size_));
  const Linear layer{matrix(w, side, side), {}};
  const double seconds = timed(4, [&] {
    for (int i = 0; i < 4; ++i)
      backend_->linear(*queue_, matrix(x, side, side), layer, Activation::kNone,
                       matrix(y, side, side));
  });
  product_rate_ = 2.0 * side * side * side / seconds;
  queue_ = backend_->make_queue();
}

void Bench::print(std::ostream& out) const {
  const DeviceInfo info = backend_->info();
  out << fmt::format(
             "{}, driver for CUDA {}, {}, {}. A copy of 1 GiB moves {:.2f} TB/s, "
             "a product of 8192×8192×8192 does {:.0f} TFLOP/s.\n\n",
             info.name, info.driver, info.library, name_of(type_), copy_rate_ * 1e-12,
             product_rate_ * 1e-12)
      << "| operation | shape | rows | µs | GB/s | of the copy | TFLOP/s | of the product |\n"
         "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Timing& t : timings_) {
    out << fmt::format(
        "| {} | {} | {} | {:.2f} | {:.0f} | {:.0f} % | {} | {} |\n", t.operation, t.shape, t.rows,
        t.seconds * 1e6, t.bytes / t.seconds * 1e-9, 100 * t.bytes / t.seconds / copy_rate_,
        t.flops > 0 ? fmt::format("{:.1f}", t.flops / t.seconds * 1e-12) : "",
        t.flops > 0 ? fmt::format("{:.0f} %", 100 * t.flops / t.seconds / product_rate_) : "");
  }
}

nlohmann::json Bench::json() const {
  const DeviceInfo info = backend_->info();
  nlohmann::json result{{"device", info.name},
                        {"driver", info.driver},
                        {"library", info.library},
                        {"precision", name_of(type_)},
                        {"copy_bytes_per_second", copy_rate_},
                        {"product_flops_per_second", product_rate_}};
  for (const Timing& t : timings_) {
    result["timings"].push_back({{"operation", t.operation},
                                 {"shape", t.shape},
                                 {"rows", t.rows},
                                 {"microseconds", t.seconds * 1e6},
                                 {"bytes", t.bytes},
                                 {"flops", t.flops},
                                 {"bytes_per_second", t.bytes / t.seconds},
                                 {"flops_per_second", t.flops / t.seconds}});
  }
  return result;
}

}  // namespace xlate::test
