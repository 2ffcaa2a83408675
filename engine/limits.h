// The system's limits on the memory, threads and file sizes of this process. Messages of errors
// name them where the system refuses more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace xlate {

/// Returns the bytes of memory that are left under the limits on address space (ulimit -v) and on
/// data (ulimit -d), the smaller of the two. Returns nothing if neither limit is set.
std::optional<std::int64_t> memory_left();

/// Returns whether the system may refuse memory when it is allocated, and not only when it is used.
/// That is so if one of these limits is set, or if the system does not overcommit memory
/// (vm.overcommit_memory is 2).
bool memory_is_limited();

/// Makes all threads share one heap if the limits leave little memory for `threads` threads.
/// Otherwise the C library gives threads heaps of their own, each of which takes 64 MiB of address
/// space. It must be called before any thread is started.
void share_heap_where_memory_is_short(int threads);

/// Returns text for the end of an error's message: " (ulimit -v: 300000 kB, 112040 kB in use)",
/// with the same for ulimit -d behind a semicolon. It is empty if neither limit is set.
std::string memory_limits();

/// Returns the system's text for the errno of a failed write. If the file has reached the limit on
/// its size, the limit is added: "File too large (ulimit -f: 1024 bytes)".
std::string write_error(int error);

/// Returns text for the end of an error's message about threads, which is empty if no limit is set.
/// It names the limits on memory, because they limit the number of threads as well, and the limit
/// on processes: " (ulimit -v: 300000 kB, 112040 kB in use; ulimit -u: 127)".
std::string thread_limits();

}  // namespace xlate
