// Finds the limits of this process in the files of its control groups.
#include "app/control_groups.h"

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

namespace xlate {
namespace {

constexpr std::int64_t kUsualPeriod = 100000;  // in microseconds

// Describes a control group that this process is in.
struct Group {
  bool second = false;  // It says whether the group is of version 2 of control groups.
  std::string path;     // It names the group in the namespace of this process.
};

// Describes a mounted hierarchy of control groups.
struct Mount {
  bool second = false;  // It says whether the mount is of version 2 of control groups.
  std::string root;     // It names the group that is mounted, in the way of Group::path.
  std::string point;    // It is the folder at which that group is mounted.
};

std::optional<std::string> line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? std::optional(line) : std::nullopt;
}

std::optional<std::int64_t> number_in(const std::string& text) {
  std::int64_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && rest == text.data() + text.size() ? std::optional(number)
                                                                   : std::nullopt;
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// Reads the groups from /proc/self/cgroup, whose lines hold a number, controllers and a path,
// separated by colons. Version 2 has the number 0 and no controllers. Groups of version 1 are
// returned if they have this controller.
std::vector<Group> groups_of(const std::string& root, const std::string& controller) {
  std::vector<Group> groups;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool of_second = line.starts_with("0::");
    if (of_second || has_word(controllers, controller))
      groups.push_back({of_second, line.substr(second + 1)});
  }
  return groups;
}

// Returns `text` with each octal escape \ooo replaced by its character. The system writes white
// space and backslashes as such escapes.
std::string unescaped(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    int code = 0;
    const bool escaped = text[i] == '\\' && i + 3 < text.size() &&
                         std::from_chars(&text[i + 1], &text[i + 4], code, 8).ptr == &text[i + 4];
    plain += escaped ? static_cast<char>(code) : text[i];
    if (escaped) i += 3;
  }
  return plain;
}

// Reads the mounts from /proc/self/mountinfo, whose lines hold a number, the parent, the device,
// the root, the mount point, options, any number of optional fields, "-", the type, the source, and
// options of the type, which name the controllers in version 1.
std::vector<Mount> mounts_of(const std::string& root, const std::string& controller) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string skipped, from, point, type, options;
    fields >> skipped >> skipped >> skipped >> from >> point;
    while (fields >> skipped && skipped != "-") {
    }
    if (!(fields >> type >> skipped >> options)) continue;
    const bool second = type == "cgroup2";
    if (second || (type == "cgroup" && has_word(options, controller)))
      mounts.push_back({second, unescaped(from), unescaped(point)});
  }
  return mounts;
}

// Returns the path that leads from the mount's root down to the group. There is none if the group
// does not lie below that root, or if it lies outside the namespace of the process, in which case
// ".." stands for names that cannot be seen.
std::optional<std::string> way_down(const Mount& mount, const Group& group) {
  const std::string from = mount.root == "/" ? "" : mount.root;
  if (group.path == from || group.path == mount.root) return "";
  if (!group.path.starts_with(from + "/")) return std::nullopt;
  const std::string way = group.path.substr(from.size());
  return (way + "/").find("/../") != std::string::npos ? std::nullopt : std::optional(way);
}

// Returns the quota of one group divided by its period, in processors, rounded up.
std::optional<std::int64_t> quota_of(const std::string& folder, bool second) {
  std::optional<std::int64_t> quota, period;
  if (second) {
    std::istringstream fields(line_of(folder + "/cpu.max").value_or(""));
    std::string allowed, time;
    if (fields >> allowed) quota = number_in(allowed);
    period = fields >> time ? number_in(time) : std::optional(kUsualPeriod);
  } else {
    quota = number_in(line_of(folder + "/cpu.cfs_quota_us").value_or(""));
    period = number_in(line_of(folder + "/cpu.cfs_period_us").value_or(""));
  }
  // Without a quota, version 2 writes "max", which is no number, and version 1 writes −1.
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return (*quota - 1) / *period + 1;
}

// Returns how many bytes one group may have.
std::optional<std::int64_t> bytes_of(const std::string& folder, bool second) {
  // Without a limit, version 2 writes "max", which is no number, and version 1 the largest number
  // of whole pages.
  constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;
  const auto bytes =
      number_in(line_of(folder + (second ? "/memory.max" : "/memory.limit_in_bytes")).value_or(""));
  return bytes && *bytes > 0 && *bytes < kNoLimit ? bytes : std::nullopt;
}

// Reads the limit that is set in a folder of a group, of the second version or of the first.
using ReadLimit = std::optional<std::int64_t> (*)(const std::string& folder, bool second);

// Returns the smallest limit of a group and of all groups above it, in every place where they are
// mounted.
std::optional<std::int64_t> limit_along(const std::string& root, const std::vector<Mount>& mounts,
                                        const Group& group, ReadLimit limit_of) {
  std::optional<std::int64_t> least;
  const auto read = [&](const Mount& mount, const std::string& way) {
    const auto limit = limit_of(root + mount.point + way, mount.second);
    if (limit) least = std::min(least.value_or(INT64_MAX), *limit);
  };
  const Mount* unrelated = nullptr;
  bool found = false;
  for (const Mount& mount : mounts) {
    if (mount.second != group.second) continue;
    const auto whole_way = way_down(mount, group);
    if (!whole_way && !unrelated) unrelated = &mount;
    if (!whole_way) continue;
    found = true;
    for (std::string way = *whole_way; !way.empty(); way.resize(way.rfind('/'))) read(mount, way);
    read(mount, "");
  }
  // If no mount shows the group, the group that is mounted is the best guess: in a container, it is
  // the container's own group.
  if (!found && unrelated) read(*unrelated, "");
  return least;
}

// Returns the smallest limit of all groups that this process is in.
std::optional<std::int64_t> least_limit(const std::string& root, const std::string& controller,
                                        ReadLimit limit_of) {
  const std::vector<Mount> mounts = mounts_of(root, controller);
  std::optional<std::int64_t> least;
  for (const Group& group : groups_of(root, controller)) {
    const auto limit = limit_along(root, mounts, group, limit_of);
    if (limit) least = std::min(least.value_or(INT64_MAX), *limit);
  }
  return least;
}

}  // namespace

std::optional<int> cpu_quota(const std::string& root) {
  const auto least = least_limit(root, "cpu", quota_of);
  if (!least) return std::nullopt;
  return static_cast<int>(std::min<std::int64_t>(*least, INT_MAX));
}

std::optional<std::int64_t> memory_limit(const std::string& root) {
  return least_limit(root, "memory", bytes_of);
}

std::string system_root() {
  const char* root = std::getenv("XLATE_TEST_SYSTEM_ROOT");
  return root ? root : "";
}

}  // namespace xlate
