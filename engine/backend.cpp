// What all backends share, and make_backend(), the only place that knows which backends this build
// has.
#include "engine/backend.h"

#include <fstream>

#include "engine/cpu/cpu_backend.h"
#ifdef XLATE_CUDA
#include "engine/cuda/cuda_backend.h"
#endif
#include "engine/error.h"
#include "engine/operations.h"

namespace xlate {

void Backend::run(Queue& queue, const Program& program, const Workspace& workspace,
                  const PackedRows& batch) {
  for (const Operation& operation : program.operations())
    std::visit(CallBackend<PackedRows>{*this, queue, workspace, batch}, operation);
}

void Backend::run(Queue& queue, const Program& program, const Workspace& workspace,
                  const Step& batch) {
  for (const Operation& operation : program.operations())
    std::visit(CallBackend<Step>{*this, queue, workspace, batch}, operation);
}

void Backend::decode(Queue& queue, const Program& program, const Workspace& workspace,
                     const Step& batch, const Projection& projection, const SearchRules& rules) {
  run(queue, program, workspace, batch);
  search_step(queue, workspace.rows(program.out(), batch.rows.rows()), projection, rules,
              batch.rows, batch.state);
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

#ifdef XLATE_CUDA
bool has_cuda() { return true; }
#else
bool has_cuda() { return false; }
#endif

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  if (!options.cuda) return std::make_unique<cpu::CpuBackend>(options);
#ifdef XLATE_CUDA
  return std::make_unique<cuda::CudaBackend>(options);
#else
  fail(
      "this build has no CUDA backend (it was configured with -DXLATE_CUDA=OFF, or where there was "
      "no CUDA toolkit)");
#endif
}

}  // namespace xlate
