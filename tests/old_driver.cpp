// Stands for the libcuda.so.1 of CUDA 12.4, as far as the CUDA runtime calls it before it finds
// that the driver is too old. refusal_test.py makes the loader find this library first.
#include <cstdint>
#include <cstring>

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDriverGetVersion(int* version) {
  *version = 12040;
  return 0;
}

int cuGetProcAddress_v2(const char* name, void** function, int, std::uint64_t, void*) {
  constexpr int kNotFound = 500;
  *function =
      std::strcmp(name, "cuInit") == 0               ? reinterpret_cast<void*>(cuInit)
      : std::strcmp(name, "cuDriverGetVersion") == 0 ? reinterpret_cast<void*>(cuDriverGetVersion)
      : std::strcmp(name, "cuGetProcAddress") == 0   ? reinterpret_cast<void*>(cuGetProcAddress_v2)
                                                     : nullptr;
  return *function ? 0 : kNotFound;
}

int cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

}  // extern "C"
