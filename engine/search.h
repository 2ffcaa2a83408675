// Search: owns the state of the sentences in flight on a backend, advances it, and traces finished sentences back on the host.
// What the settings mean, to the token, is said in docs/search.md.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/search_state.h"

namespace xlate {

struct Hypothesis {
  std::vector<std::int32_t> ids;  // without start and end token
  float score = 0;                // sum / length^A
  float sum = 0;                  // of the log-probabilities
  std::int32_t length = 0;        // generated tokens, end token included where there is one
  bool ended = false;             // by the end token; otherwise cut at the limit
};

struct Outcome {
  std::vector<Hypothesis> hypotheses;  // best first; none if no continuation had a finite score
  std::int32_t steps = 0;              // taken until the sentence was done
};

class Search {
 public:
  /// Room for `slots` sentences of at most `longest` tokens. Throws Error for more than kMaxBeams beams.
  Search(Backend&, Queue&, const SearchRules&, std::int64_t slots, std::int64_t longest);

  /// Device memory that each slot takes.
  static std::int64_t bytes_per_slot(std::int64_t beams, std::int64_t longest);

  const SearchState& state() const { return state_; }
  const SearchRules& rules() const { return rules_; }
  /// A new sentence in each of the slots, at most limits[i] tokens.
  void start(std::span<const std::int32_t> slots, std::span<const std::int32_t> limits);
  void step(Tensor hidden, const Projection&, const StepRows&);
  /// Each slot's done flag (int32) as it is when the queue gets there.
  std::unique_ptr<Ticket> read_done();
  /// What each of the slots, which are done, has found.
  std::vector<Outcome> collect(std::span<const std::int32_t> slots);

 private:
  template <class T>
  T* carve(std::int64_t count);

  Backend& backend_;
  Queue& queue_;
  std::unique_ptr<Queue> reading_;  // beside the steps that are under way
  SearchRules rules_;
  SearchState state_;
  std::vector<Buffer> buffers_;
};

}  // namespace xlate
