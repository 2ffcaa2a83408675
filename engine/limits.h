// What the system allows this process of memory, threads and file sizes: what an error says where
// it refuses more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace xlate {

/// Bytes of address space that are left under the limits set (ulimit -v, ulimit -d); none where
/// neither is set.
std::optional<std::int64_t> memory_left();

/// Whether the system may refuse memory that is only asked for, not yet used: under such a limit,
/// or where it promises no more than it has.
bool memory_is_limited();

/// Where little is left for so many threads, they share one heap: the C library would give each its
/// own, of 64 MiB of address space. To be called before any is started.
void share_heap_where_memory_is_short(int threads);

/// For the end of an error's message: " (ulimit -v: 300000 kB, 112040 kB in use)", and the like for
/// ulimit -d; empty where neither is set.
std::string memory_limits();

/// What the system says of a failed write, with the limit where the file has reached it: "File too
/// large (ulimit -f: 1024 bytes)".
std::string write_error(int error);

/// The same as memory_limits() for threads, of which memory limits the number too: " (ulimit -u:
/// 127, …)".
std::string thread_limits();

}  // namespace xlate
