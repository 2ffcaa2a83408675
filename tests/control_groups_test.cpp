// Tests that the limits on a process's CPU time and memory are found in control groups of version 1
// and version 2.
#include "app/control_groups.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace xlate {
namespace {

namespace fs = std::filesystem;

// The tests write the files that the system would show into a temporary folder, which stands for /.
class ControlGroups : public ::testing::Test {
 protected:
  ControlGroups() {
    std::string name = (fs::temp_directory_path() / "xlate-quota-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  ~ControlGroups() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void second_version(const std::string& group, const std::string& mounted = "/") {
    write("/proc/self/cgroup", "0::" + group + "\n");
    write("/proc/self/mountinfo",
          "22 20 0:5 / /proc rw - proc proc rw\n30 23 0:26 " + mounted +
              " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void first_version(const std::string& group, const std::string& mounted = "/") {
    write("/proc/self/cgroup",
          "5:cpuset:/elsewhere\n4:cpu,cpuacct:" + group + "\n1:name=systemd:/elsewhere\n");
    write("/proc/self/mountinfo",
          "31 25 0:27 / /sys/fs/cgroup/cpuset rw shared:9 - cgroup cgroup rw,cpuset\n33 25 0:29 " +
              mounted + " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  }
  void quota_of_first(const std::string& folder, const std::string& quota,
                      const std::string& period) {
    write("/sys/fs/cgroup/cpu,cpuacct" + folder + "/cpu.cfs_quota_us", quota + "\n");
    write("/sys/fs/cgroup/cpu,cpuacct" + folder + "/cpu.cfs_period_us", period + "\n");
  }
  // Returns 0 where there is no quota.
  int quota() const { return cpu_quota(root_).value_or(0); }
  // Returns 0 where there is no limit.
  std::int64_t bytes() const { return memory_limit(root_).value_or(0); }

  std::string root_;
};

TEST_F(ControlGroups, NothingThereIsNoQuota) {
  EXPECT_EQ(quota(), 0);
  second_version("/job");
  EXPECT_EQ(quota(), 0);
}

TEST_F(ControlGroups, IsRoundedUp) {
  second_version("/job");
  const std::pair<const char*, int> cases[] = {
      {"200000 100000", 2}, {"200001 100000", 3},
      {"150000 100000", 2}, {"100000 100000", 1},
      {"1000 100000", 1},   {"50000 25000", 2},
      {"300000", 3},        {"9223372036854775807 1", 2147483647}};
  for (const auto& [text, expected] : cases) {
    write("/sys/fs/cgroup/job/cpu.max", std::string(text) + "\n");
    EXPECT_EQ(quota(), expected) << text;
  }
}

TEST_F(ControlGroups, WhatIsNoQuotaIsPassedOver) {
  second_version("/job");
  for (const char* text : {"max 100000", "max", "", "x y", "100000 0", "100000 -5", "-1 100000",
                           "0 100000", "1e5 100000", "100000 x", "99999999999999999999 100000"}) {
    write("/sys/fs/cgroup/job/cpu.max", std::string(text) + "\n");
    EXPECT_EQ(quota(), 0) << text;
  }
}

TEST_F(ControlGroups, TheTightestOfTheGroupAndThoseAboveCounts) {
  second_version("/pod/job/task");
  write("/sys/fs/cgroup/pod/cpu.max", "800000 100000\n");
  write("/sys/fs/cgroup/pod/job/cpu.max", "300000 100000\n");
  write("/sys/fs/cgroup/pod/job/task/cpu.max", "500000 100000\n");
  write("/sys/fs/cgroup/pod/job/another/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), 3);
  write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2);
}

TEST_F(ControlGroups, AGroupThatIsGoneStillHasThoseAboveIt) {
  second_version("/pod/job (deleted)");
  write("/sys/fs/cgroup/pod/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota(), 4);
}

TEST_F(ControlGroups, ANamespaceOfItsOwnSeesItsGroupAsTheRoot) {
  second_version("/");
  write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3);
}

TEST_F(ControlGroups, GroupsOutsideTheNamespaceHaveWhatIsMounted) {
  write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  // A path with ".." would lead to this file.
  write("/cpu.max", "100000 100000\n");
  second_version("/../..");
  EXPECT_EQ(quota(), 3);
  second_version("/../other/job");
  EXPECT_EQ(quota(), 3);
  // The file system is mounted from outside. The own group lies below, under names that the
  // namespace cannot see.
  second_version("/", "/../..");
  EXPECT_EQ(quota(), 3);
  second_version("/../../job", "/../..");
  write("/sys/fs/cgroup/job/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2);
}

TEST_F(ControlGroups, FirstVersion) {
  first_version("/pod/job");
  quota_of_first("/pod/job", "-1", "100000");
  EXPECT_EQ(quota(), 0);
  quota_of_first("/pod", "250000", "100000");
  EXPECT_EQ(quota(), 3);
  quota_of_first("/pod/job", "50000", "50000");
  EXPECT_EQ(quota(), 1);
  quota_of_first("/pod/job", "x", "100000");
  EXPECT_EQ(quota(), 3);
  quota_of_first("/pod", "250000", "0");
  EXPECT_EQ(quota(), 0);
}

TEST_F(ControlGroups, FirstVersionInAContainerThatSeesTheNamesOutside) {
  first_version("/docker/0123abc", "/docker/0123abc");
  quota_of_first("", "200000", "100000");
  EXPECT_EQ(quota(), 2);
  first_version("/docker/0123abc/inner", "/docker/0123abc");
  quota_of_first("/inner", "100000", "100000");
  EXPECT_EQ(quota(), 1);
  // This is another group. That its name begins with the same characters means nothing.
  first_version("/docker/0123abcdef", "/docker/0123abc");
  EXPECT_EQ(quota(), 2);
}

TEST_F(ControlGroups, BothVersionsAtOnce) {
  write("/proc/self/cgroup", "4:cpu,cpuacct:/job\n0::/job\n");
  write("/proc/self/mountinfo",
        "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  quota_of_first("/job", "300000", "100000");
  EXPECT_EQ(quota(), 3);
  write("/sys/fs/cgroup/unified/job/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2);
}

TEST_F(ControlGroups, AMountOfAnotherGroupSaysNothing) {
  write("/proc/self/cgroup", "0::/mine\n");
  write("/proc/self/mountinfo",
        "40 23 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  write("/mnt/other/cpu.max", "100000 100000\n");
  write("/sys/fs/cgroup/mine/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3);
}

TEST_F(ControlGroups, NamesWithBlanksAndColons) {
  write("/proc/self/cgroup", "0::/a job: one\n");
  write("/proc/self/mountinfo", "30 23 0:26 / /sys/control\\040groups rw - cgroup2 cgroup2 rw\n");
  write("/sys/control groups/a job: one/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3);
}

TEST_F(ControlGroups, MemoryInTheSecondVersion) {
  second_version("/pod/job");
  EXPECT_EQ(bytes(), 0);
  write("/sys/fs/cgroup/pod/job/cpu.max", "100000 100000\n");
  for (const char* text : {"max", "", "x", "-1", "0", "1e9", "9223372036854771712"}) {
    write("/sys/fs/cgroup/pod/job/memory.max", std::string(text) + "\n");
    EXPECT_EQ(bytes(), 0) << text;
  }
  write("/sys/fs/cgroup/pod/memory.max", "8589934592\n");
  EXPECT_EQ(bytes(), 8589934592);
  write("/sys/fs/cgroup/pod/job/memory.max", "4294967296\n");
  EXPECT_EQ(bytes(), 4294967296);
}

TEST_F(ControlGroups, MemoryInTheFirstVersion) {
  write("/proc/self/cgroup", "5:cpu,cpuacct:/elsewhere\n4:memory:/docker/0123\n");
  write("/proc/self/mountinfo",
        "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 25 0:30 /docker/0123 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(bytes(), 0);
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
  EXPECT_EQ(bytes(), 2147483648);
}

TEST_F(ControlGroups, GarbageIsPassedOver) {
  write("/proc/self/cgroup", "\n:\n::\n0:\n4:cpu\nx:y:z\n\xff\xfe\n0::\n0::relative\n4:cpu:/job\n");
  write("/proc/self/mountinfo",
        "\n- - -\n1 2 3\n30 23 0:26 / /sys/fs/cgroup rw\n30 23 0:26 / /sys\\09x rw - cgroup2\n"
        "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw a b c - cgroup cgroup rw,cpu\n");
  quota_of_first("/job", "300000", "100000");
  EXPECT_EQ(quota(), 3);
}

}  // namespace
}  // namespace xlate
