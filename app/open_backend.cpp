// Opens the devices of a run.
#include "app/open_backend.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "app/control_groups.h"
#include "app/resolve_options.h"

namespace xlate {
namespace {

void check_precision(const Options& options, bool gpu) {
  if (options.precision != (gpu ? Precision::kInt8 : Precision::kFloat16)) return;
  throw UsageError(fmt::format("--precision: {}, expected {} or auto on {}",
                               name_of(options.precision),
                               gpu ? "fp32, fp16, bf16" : "fp32, bf16, int8",
                               gpu ? "a GPU (--device cpu has int8)" : "the CPU"));
}

// Returns the number of the step, or of the allocation, at which a device pretends to fail, which
// are hooks for tests, or 0 for none.
std::int64_t number_in(const char* variable) {
  const char* number = std::getenv(variable);
  return number ? std::atoll(number) : 0;
}

int number_of_gpu(const Options& options) {
  return options.device.starts_with("cuda:") ? std::stoi(options.device.substr(5)) : 0;
}

}  // namespace

std::unique_ptr<Backend> open_backend(const Options& options, const NetworkDescription& network,
                                      Console& console) {
  BackendOptions wanted{
      .cuda = options.device != "cpu",
      .device = number_of_gpu(options),
      .precision = effective_precision(options.precision, network, options.device != "cpu"),
      .threads = options.threads,
      .host_bytes = memory_limit(system_root()).value_or(INT64_MAX),
      .memory_share = options.gpu_memory_share,
      .memory_bytes = options.gpu_memory_bytes,
      .one_at_a_time = options.line_buffered,
      .fail_at_step = number_in("XLATE_TEST_CUDA_ERROR_AT_STEP"),
      .fail_at_allocation = number_in("XLATE_TEST_FAILED_ALLOCATION")};
  if (options.device != "auto") {
    check_precision(options, wanted.cuda);
    try {
      return make_backend(wanted);
    } catch (const Error& error) {
      fail("--device {}: {}", options.device, error.what());
    }
  }
  if (options.precision == Precision::kInt8) {
    console.note("running on the CPU: --precision int8 is for the CPU");
    wanted.cuda = false;
    return make_backend(wanted);
  }
  std::unique_ptr<Backend> gpu;
  try {
    gpu = make_backend(wanted);
  } catch (const Error& error) {
    check_precision(options, false);
    console.note(fmt::format("running on the CPU: {}", error.what()));
  }
  if (gpu) return gpu;
  wanted.cuda = false;
  wanted.precision = effective_precision(options.precision, network, false);
  return make_backend(wanted);
}

std::unique_ptr<Backend> open_float32_beside(const Backend& first, const Options& options) {
  const DeviceMemory memory = first.memory();
  return make_backend(
      {.cuda = true,
       .device = number_of_gpu(options),
       .precision = Precision::kFloat32,
       .threads = options.threads,
       .memory_bytes = std::max<std::int64_t>(1, memory.limit_bytes - memory.used_bytes)});
}

}  // namespace xlate
