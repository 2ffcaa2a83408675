// The state of search over the sentences in flight, as arrays in the backend's memory, and the
// rules of search. All of it is plain data, which a step of search reads and writes on the device,
// without the host. docs/search.md says what the rules mean. In shapes S is the number of slots, K
// of beams, B of beam groups, T of target tokens of the longest sentence with its prefix, P of the
// tokens of the longest prompt but its last one, Q of those of the longest prefix, and G of row
// groups.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/sampling.h"

namespace xlate {

/// When a beam search ends before the sentence's limit (docs/search.md, "Beam", step 5).
enum class EarlyStopping : std::uint8_t { kFalse, kTrue, kNever };

/// The largest number of end tokens. A step of search keeps some candidates for each of them.
inline constexpr int kMaxEnds = 8;

/// The rules of a whole run. Token ids are those of the target vocabulary, and −1 means that there
/// is no such token.
struct SearchRules {
  int beams = 4;  // K; with 1 the search is greedy
  // In diverse beam search (Vijayakumar et al. 2016) the beams are this many groups of equal size.
  // In each step one group after another searches by itself, and an id loses `diversity` for each
  // hypothesis that an earlier group continues with it.
  int beam_groups = 1;  // B
  float diversity = 0;
  float length_penalty = 1;  // A
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  // It is the start token of a model without prompts.
  std::int32_t start = 0;
  // Each of these ids, which are at most kMaxEnds, ends a hypothesis. Without one, only the limit
  // does.
  std::vector<std::int32_t> ends{};
  // It is the only choice for the first token, unless a sentence has one of its own.
  std::int32_t forced_first = -1;
  std::int32_t forced_end = -1;  // It is the only choice for the last token that the limit allows.
  // The log-softmax is taken over the ids that may be chosen, instead of over all ids.
  bool renormalize = false;
  std::vector<std::int32_t> never_chosen;  // ids

  // The row rules change a row by the ids that its hypothesis has had: those of the prompt, or the
  // start token, and those that were generated.
  // Every end token is forbidden as one of the first `min_length` tokens.
  std::int64_t min_length = 0;
  // An id is forbidden where it would complete this many consecutive ids that the hypothesis has
  // had already. 0 switches the rule off.
  std::int64_t no_repeat_ngram = 0;
  // The value of each id that the hypothesis has had is divided by this number if it is positive,
  // and multiplied by it if it is negative. 1 switches the rule off.
  float repetition_penalty = 1;

  // Each token is drawn at random, with one beam. What may not be chosen is left out before.
  std::optional<Sampling> sampling{};

  /// Returns whether whole rows of logits are needed in memory.
  bool has_row_rules() const {
    return min_length > 0 || no_repeat_ngram > 0 || repetition_penalty != 1 || sampling;
  }
  bool is_end(std::int32_t id) const {
    return std::find(ends.begin(), ends.end(), id) != ends.end();
  }
  /// Returns the number of beams of a group.
  int group_beams() const { return beams / beam_groups; }
  /// Returns the number of candidates that a step looks at for each group. Each beam may lose one
  /// candidate to each end token.
  int group_candidates() const {
    return beams == 1 ? 1 : group_beams() * std::max(2, 1 + static_cast<int>(ends.size()));
  }
  /// Returns the number of candidates that a step keeps of each row. It is enough for a group even
  /// if each beam of the others makes it lose one.
  int candidates() const { return group_candidates() * beam_groups; }
};

/// What a sentence begins with in a slot.
struct SlotStart {
  std::int32_t slot = 0;
  // The largest number of tokens of the sentence, its prefix and its end token included.
  std::int32_t limit = 0;
  // It is the only choice for the first token. −1 means that there is none.
  std::int32_t forced_first = -1;
  // This token enters the network first: SearchRules::start, or the last token of a prompt.
  std::int32_t start = 0;
  // So many tokens of a prompt stand before its last one.
  std::int32_t tokens_before = 0;
  // The target begins with so many given tokens. They add nothing to scores, and do not count in
  // the length of a hypothesis.
  std::int32_t prefix_tokens = 0;
  // It names the draws of the sentence's tokens.
  std::int64_t line = 0;
  std::int32_t draw = 0;
};

/// A node of the search tree: a token, and the beam of the previous step whose hypothesis it
/// continues.
struct Node {
  std::int32_t token;
  std::int32_t parent;
};

/// A hypothesis of the finished list.
struct Finished {
  float score;          // sum / length^A
  float sum;            // the sum of the log-probabilities
  std::int32_t length;  // in tokens, the prefix and the end token included
  Node last;            // the last token; the tokens before it are in SearchState::history
};

/// This value of SearchState::finished_count marks a sentence that is done because of a logit that
/// is +∞ or not a number.
inline constexpr std::int32_t kNotFinite = -1;

/// The arrays of search on the device. The first index of each array is the slot.
struct SearchState {
  // [S, K]: the last token of each live hypothesis.
  std::int32_t* token = nullptr;
  // [S, K]: the sum of the log-probabilities of each live hypothesis.
  float* score = nullptr;
  // [S]: the number of tokens generated so far. It is also the position at which the last token
  // enters the network, counted from the start token, which is not one of them.
  std::int32_t* length = nullptr;
  // [S]: the largest number of tokens of the sentence, its prefix and its end token included.
  std::int32_t* limit = nullptr;
  // [S]: the only choice for the sentence's first token, or −1.
  std::int32_t* forced_first = nullptr;
  // [S]: the start token of each sentence (SlotStart::start).
  std::int32_t* start = nullptr;
  // [S, P]: the ids of the prompt before the start token, of which the first tokens_before[s] are
  // valid, and [S]: their number. Both are null if no row rule reads them.
  std::int32_t* prompt = nullptr;
  std::int32_t* tokens_before = nullptr;
  // [S, Q]: the given tokens with which a target begins, of which the first prefix_tokens[s] are
  // valid, and [S]: their number. Both are null if no target of the run has any.
  std::int32_t* prefix = nullptr;
  std::int32_t* prefix_tokens = nullptr;
  // [S]: the names of the sentence's draws, whose steps are not used. It is null where nothing is
  // drawn.
  DrawName* draws = nullptr;
  // [S]: 1 once the sentence is done, and its finished list final; else 0.
  std::int32_t* done = nullptr;
  // [S, T, K]: the search tree. Row t holds the (t+1)th token of each live hypothesis. The step
  // that ends a sentence writes no row: its tokens are in the finished list.
  Node* history = nullptr;
  // [S, T, K]: the beam under which the self caches hold the key and value of position t of live
  // hypothesis k.
  std::uint8_t* ancestor = nullptr;
  // [S, K]: the finished list, best first, of which the first finished_count entries are valid.
  Finished* finished = nullptr;
  // [S]; kNotFinite where a logit of a live hypothesis is +∞ or not a number.
  std::int32_t* finished_count = nullptr;
  // [S, B]: the number of entries of each group's own finished list, whose place in `finished` is
  // that of the group's beams, and whether the group is done, while the sentence is not. Then
  // `finished` becomes one list. Both are null where there is one group.
  std::int32_t* group_finished_count = nullptr;
  std::int32_t* group_done = nullptr;
  std::int64_t slots = 0, beams = 0, longest = 0;  // S, K, T
  std::int64_t longest_before = 0;                 // P
  std::int64_t longest_prefix = 0;                 // Q
};

/// The beginning of a record that Backend::collect copies for a slot. Behind it are the finished
/// list [K], of which the first `finished_count` entries are valid if there are any, and the first
/// length − 1 rows of the slot's history, [length − 1, K].
struct SearchRecord {
  std::int32_t finished_count;
  std::int32_t length;
  std::int32_t prefix_tokens;
  /// Returns the bytes of a record of a sentence of `longest` tokens, rounded up to a multiple of
  /// 16. `longest` is at least 1.
  static std::int64_t bytes(std::int64_t beams, std::int64_t longest) {
    const auto exact = static_cast<std::int64_t>(
        sizeof(SearchRecord) + static_cast<std::size_t>(beams) * sizeof(Finished) +
        static_cast<std::size_t>((longest - 1) * beams) * sizeof(Node));
    return (exact + 15) / 16 * 16;
  }
};

/// The rows of one decoding step. Group g has the K rows of slot slots[g], or belongs to no slot if
/// slots[g] is negative. A backend may or may not compute the rows of a slot that is done, but it
/// leaves the slot's state unchanged.
struct StepRows {
  const std::int32_t* slots = nullptr;  // [G], device
  std::int64_t groups = 0;              // G
  std::int64_t beams = 1;               // K
  /// Returns R = G·K.
  std::int64_t rows() const { return groups * beams; }
};

/// The largest number of beams. SearchState::ancestor has one byte for the number of a beam.
inline constexpr int kMaxBeams = 256;

}  // namespace xlate
