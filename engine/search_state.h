// What search knows of the sentences in flight, as arrays in the backend's memory, and the rules it
// follows. Plain data: a step of search reads and writes it on the device, without the host.
#pragma once

#include <cstdint>
#include <vector>

namespace xlate {

/// When a sentence is done before its limit (docs/search.md, step 5).
enum class EarlyStopping : std::uint8_t { kFalse, kTrue, kNever };

/// The rules that hold for a whole run. Ids are of the target vocabulary; −1 = none.
struct SearchRules {
  int beams = 4;  // 1 is greedy
  float length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  std::int32_t start = 0;
  std::int32_t end = 0;            // −1: only the limit ends a hypothesis
  std::int32_t forced_first = -1;  // the only choice for the first token
  std::int32_t forced_end = -1;    // the only choice for the last token that the limit allows
  bool renormalize = false;        // log-softmax over the ids that may be chosen, instead of all
  std::vector<std::int32_t> never_chosen;
};

/// A token of the search tree: the token and the beam (of the step before) that it continues.
struct Node {
  std::int32_t token;
  std::int32_t parent;
};

/// A finished hypothesis: the tree's last node, and its scores.
struct Finished {
  float score;          // sum / length^A
  float sum;            // of the log-probabilities
  std::int32_t length;  // tokens, end token included
  Node last;
};

/// Device arrays, S slots of K beams and at most T tokens. All are slot-major.
struct SearchState {
  std::int32_t* token = nullptr;  // [S, K] last token of each live hypothesis
  float* score = nullptr;         // [S, K] its sum of log-probabilities
  std::int32_t* length =
      nullptr;  // [S] tokens generated: the position at which the last token enters the network
  std::int32_t* limit = nullptr;  // [S] tokens at most, end token included
  std::int32_t* done = nullptr;   // [S] 1: finished lists are final
  Node* history =
      nullptr;  // [S, T, K] the search tree; row t holds the (t+1)th token of each live hypothesis
  std::uint8_t* ancestor =
      nullptr;  // [S, T, K] line that holds key and value of position t of live hypothesis k
  Finished* finished = nullptr;            // [S, K] best first
  std::int32_t* finished_count = nullptr;  // [S]
  std::int64_t slots = 0, beams = 0, longest = 0;
};

/// What Backend::collect copies of a slot: this head, `finished` [K], then the first length − 1
/// rows of its history, [length − 1, K].
struct SearchRecord {
  std::int32_t finished_count;
  std::int32_t length;
  static std::int64_t bytes(std::int64_t beams, std::int64_t longest) {
    const auto exact = static_cast<std::int64_t>(
        sizeof(SearchRecord) + static_cast<std::size_t>(beams) * sizeof(Finished) +
        static_cast<std::size_t>((longest - 1) * beams) * sizeof(Node));
    return (exact + 15) / 16 * 16;
  }
};

/// The rows of one step: group g of K rows is slot slots[g], none where that is negative; a group
/// whose slot is done is computed in vain or not at all, and leaves its slot as it is.
struct StepRows {
  const std::int32_t* slots = nullptr;  // [G], device
  std::int64_t groups = 0;              // G
  std::int64_t beams = 1;               // K
  std::int64_t rows() const { return groups * beams; }
};

/// Beams are named by a byte in SearchState::ancestor.
inline constexpr int kMaxBeams = 256;

}  // namespace xlate
