// Finds out how much of the processors a container or a job may use. Its control groups may set a
// quota, which does not show in the set of processors that the process may run on.
#pragma once

#include <optional>
#include <string>

namespace xlate {

/// Returns the CPU time per unit of time that the control groups of this process allow, in
/// processors, rounded up, so at least 1. It is the smallest quota of the group of the process and
/// of all groups above it, as far as they are mounted, in both versions of control groups: cpu.max
/// in version 2, cpu.cfs_quota_us over cpu.cfs_period_us in version 1. Returns none if no quota is
/// set or none can be read. `root` is the folder that holds proc and the mounted groups; "" stands
/// for the root of the system.
std::optional<int> cpu_quota(const std::string& root);

}  // namespace xlate
