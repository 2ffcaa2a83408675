// KernelPaths collects which special kernels a run has used, and the reason where a general kernel
// ran instead. The report shows it as `paths`, so that no model is slow without a notice.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

namespace xlate::cuda {

class KernelPaths {
 public:
  /// Names what a special kernel computes.
  enum class Of : std::uint8_t { kVocabulary, kAttention, kNorm, kSolo };

  /// Notes that the special kernel has run.
  void fast(Of of) { entry(of).fast = true; }
  /// Notes that it has not run. `why` returns the reason and is called only the first time.
  template <class Why>
  void slow(Of of, const Why& why) {
    if (entry(of).why.empty()) entry(of).why = why();
  }
  /// Returns for each kind, by name, how it was computed, or "no: " and the reason, or both if both
  /// have happened. A kind of which nothing was noted is left out.
  std::map<std::string, std::string> list() const {
    static constexpr std::array<std::array<const char*, 2>, 4> kNames{
        {{"vocabulary", "fused"},
         {"attention", "streamed"},
         {"norm", "fused with its product"},
         {"solo", "a step is one kernel"}}};
    std::map<std::string, std::string> paths;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const auto& [fast, why] = entries_[i];
      if (!fast && why.empty()) continue;
      paths[kNames[i][0]] = (fast ? kNames[i][1] : std::string()) +
                            (fast && !why.empty() ? "; " : "") + (why.empty() ? "" : "no: " + why);
    }
    return paths;
  }

 private:
  struct Entry {
    bool fast = false;
    std::string why;
  };
  Entry& entry(Of of) { return entries_[static_cast<std::size_t>(of)]; }

  std::array<Entry, 4> entries_;
};

}  // namespace xlate::cuda
