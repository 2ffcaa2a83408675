// SlotSearch is the search of one sentence on the CPU: it says which tokens may be chosen, and how
// the candidates of a step become live and finished hypotheses (docs/search.md).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "engine/search_state.h"

namespace xlate::cpu {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// This is the score of a beam that has no hypothesis.
inline constexpr float kDead = -1e9f;
// A finished list takes only scores above this one.
inline constexpr float kWorthless = -1e8f;

struct Candidate {
  // This is the score of the hypothesis plus the log-probability of the token.
  float value;
  Node node;
};

/// Names the beams of a group: `count` of them from `first` on.
struct BeamGroup {
  std::int64_t first, count;
};

/// Views the arrays of one slot in SearchState.
class SlotSearch {
 public:
  SlotSearch(const SearchRules&, const SearchState&, std::int64_t slot);

  /// Returns the only token that may be chosen now, or −1 if the choice is free.
  std::int32_t forced() const;
  float score(std::int64_t beam) const { return score_[beam]; }
  /// Returns the number of tokens generated so far behind the prefix. It is negative within it.
  std::int32_t generated() const { return length_ - prefix_tokens(); }
  /// Returns the name of the draw of the next token.
  DrawName draw_name() const { return {draw_.line, draw_.draw, generated()}; }
  /// Returns the ids that the decoder has had for a live hypothesis: those of the prompt, of which
  /// the start token is the last one or the only one, and then the tokens that were generated.
  std::vector<std::int32_t> ids_of(std::int64_t beam) const;
  /// Returns what a token loses in this step because of the groups that have chosen so far.
  float penalty(std::int32_t token) const {
    return rules_.diversity * static_cast<float>(std::count(chosen_.begin(), chosen_.end(), token));
  }
  /// Advances the sentence by one token. `candidates_of` returns the best continuations of a
  /// group's hypotheses, in order, as many as SearchRules::group_candidates() says.
  void advance(const std::function<std::vector<Candidate>(BeamGroup)>& candidates_of);
  /// Ends the sentence without a hypothesis, because a logit is +∞ or NaN.
  void fail();

 private:
  std::int32_t prefix_tokens() const { return static_cast<std::int32_t>(prefix_.size()); }
  void advance_group(std::int64_t group, const std::vector<Candidate>& candidates,
                     std::vector<Candidate>& live);
  void add_finished(std::int64_t group, const Finished&);
  bool is_done(std::int64_t group, float best, float divisor) const;
  void merge_groups();
  void keep(const std::vector<Candidate>& live);

  const SearchRules& rules_;
  std::int64_t beams_, group_beams_;
  std::int32_t* token_;
  float* score_;
  std::int32_t& length_;
  std::int32_t limit_, forced_first_, start_;
  // They are the ids of the prompt before the start token.
  std::span<const std::int32_t> before_;
  // They are the given tokens with which the target begins.
  std::span<const std::int32_t> prefix_;
  DrawName draw_;
  std::int32_t& done_;
  Node* history_;
  std::uint8_t* ancestor_;
  Finished* finished_;
  std::int32_t& finished_count_;
  // [B]. A single group has those of the sentence.
  std::int32_t *group_finished_count_, *group_done_;
  // It has the ids with which earlier groups continue their hypotheses in this step.
  std::vector<std::int32_t> chosen_{};
};

}  // namespace xlate::cpu
