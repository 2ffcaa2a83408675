// One sentence's search on the CPU: what may be chosen, and how a step's candidates become live and
// finished hypotheses (docs/search.md).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "engine/search_state.h"

namespace xlate::cpu {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kDead = -1e9f;  // score of the hypotheses that a sentence does not have yet
inline constexpr float kWorthless = -1e8f;  // what is not above never enters a finished list

struct Candidate {
  float value;  // score of the hypothesis + log-probability of the token
  Node node;
};

/// A view of one slot's arrays in SearchState.
class SlotSearch {
 public:
  SlotSearch(const SearchRules&, const SearchState&, std::int64_t slot);

  /// The only token that may be chosen now, or −1.
  std::int32_t forced() const;
  float score(std::int64_t beam) const { return score_[beam]; }
  /// candidates: the best 2K (greedy: 1) of all continuations, in order.
  void advance(const std::vector<Candidate>& candidates);

 private:
  void add_finished(const Finished&);
  bool is_done(float best, float divisor) const;
  void keep(const std::vector<Candidate>& live);

  const SearchRules& rules_;
  std::int64_t beams_;
  std::int32_t* token_;
  float* score_;
  std::int32_t& length_;
  std::int32_t limit_;
  std::int32_t& done_;
  Node* history_;
  std::uint8_t* ancestor_;
  Finished* finished_;
  std::int32_t& finished_count_;
};

}  // namespace xlate::cpu
