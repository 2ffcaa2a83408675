// Finds out how much of the processors and of the memory a container or a job may use. Its control
// groups may limit both, which does not show in the set of processors that the process may run on,
// nor in the size of the machine's memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace xlate {

// Both functions look at the group of the process and at all groups above it, as far as they are
// mounted, in both versions of control groups, and return the smallest limit, or none if none is
// set or none can be read. `root` is the folder that holds proc and the mounted groups.

/// Returns the CPU time per unit of time that is allowed, in processors, rounded up, so at least 1:
/// cpu.max in version 2, cpu.cfs_quota_us over cpu.cfs_period_us in version 1.
std::optional<int> cpu_quota(const std::string& root);

/// Returns how many bytes of memory are allowed. A process that takes more is killed. They are
/// memory.max in version 2 and memory.limit_in_bytes in version 1.
std::optional<std::int64_t> memory_limit(const std::string& root);

/// Returns "", which stands for the root of the system, or the folder that a test names in its
/// place.
std::string system_root();

}  // namespace xlate
