// The CUDA driver loads this library into a program (CUDA_INJECTION64_PATH=…/libtrace_kernels.so).
// It writes what ran on the GPU to the file that XLATE_TRACE names: a line for each kernel, copy
// and memset, with start and end in nanoseconds, stream and name. scripts/step_timeline reads that
// file. The kernels of a CUDA graph are recorded one by one, which costs some time between them.
// CUPTI only appends fields to its records from one version to the next, so the records are read as
// those of CUDA 12, which newer headers still declare.
#include <cupti.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

namespace {

constexpr std::size_t kBufferBytes = 8 << 20;
std::FILE* trace = nullptr;

void line(std::uint64_t start, std::uint64_t end, std::uint32_t stream, const char* name) {
  std::fprintf(trace, "%llu\t%llu\t%u\t%s\n", static_cast<unsigned long long>(start),
               static_cast<unsigned long long>(end), stream, name);
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  *size = *buffer ? kBufferBytes : 0;
  *records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t,
                          std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
      line(kernel->start, kernel->end, kernel->streamId, kernel->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
      line(copy->start, copy->end, copy->streamId, "memcpy");
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* set = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      line(set->start, set->end, set->streamId, "memset");
    }
  }
  std::free(buffer);
}

}  // namespace

// The driver calls this function in an injected library. It returns 1 if the library works.
extern "C" int InitializeInjection() {
  const char* path = std::getenv("XLATE_TRACE");
  trace = path ? std::fopen(path, "w") : nullptr;
  if (!trace) return 0;
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS) return 0;
  for (const auto kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                          CUPTI_ACTIVITY_KIND_MEMSET}) {
    if (cuptiActivityEnable(kind) != CUPTI_SUCCESS) return 0;
  }
  std::atexit([] {
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    std::fclose(trace);
  });
  return 1;
}
