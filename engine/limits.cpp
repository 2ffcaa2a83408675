// The limits are read from getrlimit(2), and what is in use from /proc.
#include "engine/limits.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "engine/error.h"

namespace xlate {
namespace {

struct MemoryLimit {
  const char* option;          // of the shell's ulimit
  std::int64_t allowed, used;  // bytes
};

// Returns nothing if there is no limit, which the system says by the largest number
// (RLIM_INFINITY).
std::optional<std::int64_t> limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur >= static_cast<rlim_t>(INT64_MAX))
    return std::nullopt;
  return static_cast<std::int64_t>(limit.rlim_cur);
}

// Returns the number at `place`, from 0, in a file of /proc that holds only numbers, or 0 if there
// is none. It uses stdio and no strings, because it is also called when memory has run out.
std::int64_t number_in(const char* path, int place) {
  std::FILE* file = std::fopen(path, "re");
  if (!file) return 0;
  long long number = 0;
  for (int i = 0; i <= place; ++i) {
    if (std::fscanf(file, "%lld", &number) != 1) number = 0;
  }
  std::fclose(file);
  return number;
}

std::vector<MemoryLimit> limits_set() {
  // These are fields of /proc/self/statm, in pages: all memory that is mapped, and the part of it
  // that is data.
  constexpr int kMapped = 0, kData = 5;
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  std::vector<MemoryLimit> limits;
  if (const auto allowed = limit_of(RLIMIT_AS))
    limits.push_back({"-v", *allowed, number_in("/proc/self/statm", kMapped) * page});
  if (const auto allowed = limit_of(RLIMIT_DATA))
    limits.push_back({"-d", *allowed, number_in("/proc/self/statm", kData) * page});
  return limits;
}

std::string in_brackets(const std::string& text) { return text.empty() ? "" : " (" + text + ")"; }

std::string text_of(const std::vector<MemoryLimit>& limits) {
  std::string text;
  for (const MemoryLimit& limit : limits) {
    text += fmt::format("{}ulimit {}: {} kB, {} kB in use", text.empty() ? "" : "; ", limit.option,
                        limit.allowed / 1024, limit.used / 1024);
  }
  return text;
}

}  // namespace

std::optional<std::int64_t> memory_left() {
  std::optional<std::int64_t> left;
  for (const MemoryLimit& limit : limits_set()) {
    const std::int64_t free = std::max<std::int64_t>(0, limit.allowed - limit.used);
    left = left ? std::min(*left, free) : free;
  }
  return left;
}

bool memory_is_limited() {
  constexpr std::int64_t kNoMoreThanThereIs = 2;
  return !limits_set().empty() ||
         number_in("/proc/sys/vm/overcommit_memory", 0) == kNoMoreThanThereIs;
}

void share_heap_where_memory_is_short(int threads) {
  // A thread's own heap and its inputs of products take less than 256 MiB together. Another GiB is
  // for the few threads besides those that the user asks for, and for everything else.
  constexpr std::int64_t kThread = std::int64_t{1} << 28, kOthers = std::int64_t{1} << 30;
  if (memory_left().value_or(INT64_MAX) < kOthers + threads * kThread) mallopt(M_ARENA_MAX, 1);
}

std::string memory_limits() { return in_brackets(text_of(limits_set())); }

std::string write_error(int error) {
  const auto bytes = error == EFBIG ? limit_of(RLIMIT_FSIZE) : std::nullopt;
  return std::strerror(error) +
         (bytes ? fmt::format(" (ulimit -f: {} bytes)", *bytes) : std::string());
}

std::string thread_limits() {
  std::string text = text_of(limits_set());
  if (const auto threads = limit_of(RLIMIT_NPROC))
    text += fmt::format("{}ulimit -u: {}", text.empty() ? "" : "; ", *threads);
  return in_brackets(text);
}

}  // namespace xlate
