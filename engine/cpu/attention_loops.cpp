// Compiles the loops of attention for each instruction set. The compiler cannot make clones of them
// as it does of those in loops.cpp: it divides vectors into the registers of the baseline before it
// makes clones.
#include "engine/cpu/attention_loops.h"

#include <cstring>

#include "engine/cpu/loops.h"

namespace xlate::cpu {
namespace {

namespace baseline {
constexpr std::int64_t kLanes = 4;
#include "engine/cpu/attention_loops_of_set.h"
}  // namespace baseline

#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace avx2 {
constexpr std::int64_t kLanes = 8;
#include "engine/cpu/attention_loops_of_set.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
namespace avx512 {
constexpr std::int64_t kLanes = 16;
#include "engine/cpu/attention_loops_of_set.h"
}  // namespace avx512
#pragma GCC pop_options
#endif

}  // namespace

const AttentionLoops& attention_loops([[maybe_unused]] const char* set) {
#if defined(__x86_64__) && !defined(XLATE_SANITIZE)
  if (!std::strcmp(set, "avx512")) return avx512::kLoops;
  if (!std::strcmp(set, "avx2")) return avx2::kLoops;
#endif
  return baseline::kLoops;
}

const AttentionLoops& attention_loops() {
  static const AttentionLoops& chosen = attention_loops(instruction_set());
  return chosen;
}

}  // namespace xlate::cpu
