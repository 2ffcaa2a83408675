// The share of the processors that a container or a job may use: a quota of its control groups,
// which the processors it may run on do not show.
#pragma once

#include <optional>
#include <string>

namespace xlate {

/// CPU time per time that the groups of this process allow, in processors, rounded up, at least 1:
/// the least of its group's and those above it, of both versions of control groups (cpu.max;
/// cpu.cfs_quota_us over cpu.cfs_period_us), as far as they are mounted. None where no quota is
/// set, or nothing of it can be read. `root`: the folder that holds proc and what is mounted; "" is
/// the system's own.
std::optional<int> cpu_quota(const std::string& root);

}  // namespace xlate
