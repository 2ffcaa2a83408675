// Opens the module of oneDNN.
#include <dlfcn.h>

#include <string>

#include "engine/cpu/products/product_library.h"
#include "engine/error.h"
#include "engine/limits.h"

namespace xlate::cpu {

std::unique_ptr<ProductLibrary> open_product_library() {
  void* module = dlopen("libxlate_onednn.so", RTLD_NOW | RTLD_LOCAL);
  if (!module) {
    const std::string error = dlerror();
    if (error.starts_with("libxlate_onednn.so")) {
      fail(
          "the CPU backend needs libxlate_onednn.so, which belongs into ../lib/xlate beside the "
          "folder of xlate: {}{}",
          error, memory_limits());
    }
    fail("the CPU backend needs oneDNN ({}; Debian and Ubuntu: apt install {}): {}{}",
         XLATE_ONEDNN_FILE, XLATE_ONEDNN_PACKAGE, error, memory_limits());
  }
  const auto make = reinterpret_cast<MakeProductLibrary>(dlsym(module, kMakeProductLibrary));
  if (!make) fail("libxlate_onednn.so has no {}", kMakeProductLibrary);
  return std::unique_ptr<ProductLibrary>(make());
}

}  // namespace xlate::cpu
