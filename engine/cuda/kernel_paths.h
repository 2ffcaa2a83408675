// Which of its special kernels a run used, and where it did not, why: no model is slow in silence.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

namespace xlate::cuda {

class KernelPaths {
 public:
  /// What a special kernel is for.
  enum class Of : std::uint8_t { kVocabulary, kAttention, kNorm, kSolo };

  /// The special kernel ran.
  void fast(Of of) { entry(of).fast = true; }
  /// It did not; why() says the reason, and is called the first time only.
  template <class Why>
  void slow(Of of, const Why& why) {
    if (entry(of).why.empty()) entry(of).why = why();
  }
  /// By name: how it was done; "no: " and the reason; or both, where both happened. Nothing of what
  /// was not done at all.
  std::map<std::string, std::string> list() const {
    static constexpr std::array<std::array<const char*, 2>, 4> kNames{
        {{"vocabulary", "fused"},
         {"attention", "streamed"},
         {"norm", "joined to its product"},
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
