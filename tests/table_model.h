// A SequenceModel without a network: the next token's logits are a row of a table. Also how one sentence is decoded alone with it.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "engine/search.h"
#include "engine/sequence_model.h"
#include "tests/support.h"

namespace xlate::test {

/// Logits [kinds, positions, V, V]: of a sentence of some kind, after `position` tokens (the last row holds from there on), by last
/// token and next token. All that search does with a network can be done with it.
struct Table {
  int vocabulary = 0, positions = 1, kinds = 1;
  std::vector<float> logits;

  Table(int vocabulary, int positions = 1, int kinds = 1)
      : vocabulary(vocabulary), positions(positions), kinds(kinds),
        logits(static_cast<std::size_t>(kinds) * static_cast<std::size_t>(positions) * static_cast<std::size_t>(vocabulary) * static_cast<std::size_t>(vocabulary)) {}
  /// Which hidden row is one: the last hidden row is one-hot, so a product with it is exact.
  int place(int kind, int position, int last) const { return (kind * positions + std::min(position, positions - 1)) * vocabulary + last; }
  /// As a backend's type holds it.
  void round_to(DType type) {
    for (float& logit : logits) logit = static_cast<float>(rounded(type, logit));
  }
  int places() const { return kinds * positions * vocabulary; }
  float* row(int kind, int position, int last) { return logits.data() + static_cast<std::ptrdiff_t>(place(kind, position, last)) * vocabulary; }
  const float* row(int kind, int position, int last) const { return const_cast<Table*>(this)->row(kind, position, last); }
};

/// A sentence's kind is its first source id, modulo the kinds. Caches of `room` tokens in all, of which a sentence takes its limit, or,
/// where it `grows`, what it has come to need.
class TableModel final : public SequenceModel {
 public:
  static constexpr std::int64_t kPlenty = std::int64_t{1} << 40;

  TableModel(Lab& lab, const Table& table, std::int64_t room = kPlenty) : lab_(lab), table_(table), room_(room) {
    Matrix weight(table.vocabulary, table.places());
    for (std::int64_t place = 0; place < table.places(); ++place) {
      for (std::int64_t token = 0; token < table.vocabulary; ++token) weight(token, place) = table.logits[static_cast<std::size_t>(place * table.vocabulary + token)];
    }
    projection_.linear.weight = lab.put_weight(weight);
  }

  std::int64_t affordable_tokens(std::int64_t) const override { return kPlenty; }
  void begin(const Capacity& capacity) override {
    capacity_ = capacity;
    room_ = std::max(room_, capacity.longest_target);
    hidden_ = lab_.room(capacity.slots * capacity.beams, table_.places(), lab_.type());
  }
  bool has_room(const Source& source) const override { return taken_ + (grows ? 1 : source.limit) <= room_; }
  void reserve(std::int64_t slot, const Source& source) override {
    EXPECT_TRUE(has_room(source)) << "reserved without asking";
    const std::int64_t tokens = grows ? 1 : source.limit;
    EXPECT_TRUE(reserved_.emplace(slot, tokens).second) << "slot " << slot << " is reserved twice";
    limits_[slot] = source.limit;
    source_tokens_[slot] = static_cast<std::int64_t>(source.ids.size());
    std::int64_t source_tokens = 0;
    for (const auto& [other, tokens] : source_tokens_) source_tokens += tokens;
    most_source_tokens = std::max(most_source_tokens, source_tokens);
    EXPECT_TRUE(slot >= 0 && slot < capacity_.slots);
    taken_ += tokens;
  }
  std::int64_t extend(std::int64_t slot, std::int64_t tokens) override {
    EXPECT_TRUE(reserved_.contains(slot));
    EXPECT_LE(tokens, limits_[slot]);
    const std::int64_t more = std::max<std::int64_t>(0, tokens - reserved_[slot]);
    if (taken_ + more > room_) return 0;
    taken_ += more;
    return reserved_[slot] += more;
  }
  void publish_room(Queue&) override {}
  void pass(std::int64_t steps) override { steps_passed += steps; }
  void release(std::int64_t slot, bool done) override {
    if (!done) ++put_off;
    ASSERT_TRUE(reserved_.contains(slot));
    taken_ -= reserved_[slot];
    reserved_.erase(slot);
    source_tokens_.erase(slot);
    kind_of_slot_.erase(slot);
    cache_.erase(slot);
  }
  std::unique_ptr<Encoded> encode(Queue&, std::span<const Source> sources) override {
    auto kinds = std::make_unique<Kinds>();
    std::int64_t tokens = 0;
    for (const Source& source : sources) {
      EXPECT_FALSE(source.ids.empty());
      kinds->kinds.push_back(source.ids[0] % table_.kinds);
      tokens += static_cast<std::int64_t>(source.ids.size());
    }
    EXPECT_LE(tokens, capacity_.encoder_tokens);
    largest_batch = std::max(largest_batch, tokens);
    ++batches;
    return kinds;
  }
  void install(Queue&, const Encoded& encoded, std::int64_t first, std::span<const std::int32_t> slots) override {
    const auto& kinds = static_cast<const Kinds&>(encoded).kinds;
    ASSERT_LE(static_cast<std::size_t>(first) + slots.size(), kinds.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      EXPECT_TRUE(reserved_.contains(slots[i])) << "installed into a slot that is not reserved";
      kind_of_slot_[slots[i]] = kinds[static_cast<std::size_t>(first) + i];
    }
  }
  Tensor step(Queue& queue, const SearchState& state, const StepRows& rows) override {
    auto slots = lab_.array<std::int32_t>(rows.slots, rows.groups, queue);
    slots.erase(std::remove(slots.begin(), slots.end(), -1), slots.end());  // empty groups come last
    const auto tokens = lab_.array<std::int32_t>(state.token, state.slots * state.beams, queue);
    const auto lengths = lab_.array<std::int32_t>(state.length, state.slots, queue);
    EXPECT_LE(rows.rows(), hidden_.rows);
    EXPECT_EQ(std::set<std::int32_t>(slots.begin(), slots.end()).size(), slots.size()) << "a slot is stepped twice";
    Matrix hidden(rows.rows(), table_.places());
    const auto done = lab_.array<std::int32_t>(state.done, state.slots, queue);
    for (const std::int32_t slot : slots) {
      if (done[static_cast<std::size_t>(slot)]) continue;  // stepped in vain
      EXPECT_GT(reserved_[slot], lengths[static_cast<std::size_t>(slot)]) << "slot " << slot << " is stepped without room";
    }
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(slots.size()) * rows.beams; ++row) {
      const std::int32_t slot = slots[static_cast<std::size_t>(row / rows.beams)];
      const std::int32_t last = tokens[static_cast<std::size_t>(slot * rows.beams + row % rows.beams)];
      EXPECT_TRUE(kind_of_slot_.contains(slot)) << "slot " << slot << " holds no sentence";
      EXPECT_TRUE(last >= 0 && last < table_.vocabulary);
      const bool broken = kind_of_slot_[slot] == broken_kind;
      hidden(row, table_.place(kind_of_slot_[slot], lengths[static_cast<std::size_t>(slot)], last)) = broken ? std::numeric_limits<float>::quiet_NaN() : 1;
    }
    check_ancestors(queue, state, slots, lengths, tokens);
    most_rows = std::max(most_rows, rows.rows());
    const Tensor out = hidden_.row_range(0, rows.rows());
    lab_.write(hidden, out, queue);
    return out;
  }
  const Projection& projection() const override { return projection_; }
  Projection& projection() { return projection_; }
  const Capacity& capacity() const { return capacity_; }
  std::size_t sentences_inside() const { return reserved_.size(); }

  bool grows = false;
  // What was asked of it.
  std::int64_t largest_batch = 0, batches = 0, most_rows = 0, most_source_tokens = 0, steps_passed = 0, put_off = 0;
  std::int64_t broken_kind = -1;  // whose sentences' logits are no numbers

 private:
  using Path = std::vector<std::int32_t>;

  // A cache of keys as a network would have it, only that the key of a token is the whole path to it: on the lines that `ancestor`
  // names, each live hypothesis must find its own past, which the search tree tells too.
  void check_ancestors(Queue& queue, const SearchState& state, const std::vector<std::int32_t>& slots, const std::vector<std::int32_t>& lengths,
                       const std::vector<std::int32_t>& tokens) {
    const auto done = lab_.array<std::int32_t>(state.done, state.slots, queue);
    for (const std::int32_t slot : slots) {
      if (done[static_cast<std::size_t>(slot)]) continue;  // stepped in vain
      const auto length = static_cast<std::int64_t>(lengths[static_cast<std::size_t>(slot)]), beams = state.beams;
      auto& lines = cache_[slot];
      const auto nodes = lab_.array<Node>(state.history + slot * state.longest * beams, length * beams, queue);
      const auto ancestors = lab_.array<std::uint8_t>(state.ancestor + slot * state.longest * beams, length * beams, queue);
      std::vector<Path> now;
      for (std::int64_t beam = 0; beam < beams; ++beam) {
        Path path;
        std::int64_t at = beam;
        for (std::int64_t t = length; t-- > 0; at = nodes[static_cast<std::size_t>(t * beams + at)].parent) {
          path.insert(path.begin(), nodes[static_cast<std::size_t>(t * beams + at)].token);
        }
        EXPECT_TRUE(path.empty() || path.back() == tokens[static_cast<std::size_t>(slot * beams + beam)]);
        for (std::int64_t t = 0; t < length && t < static_cast<std::int64_t>(lines.size()); ++t) {
          const Path& key = lines[static_cast<std::size_t>(t)][ancestors[static_cast<std::size_t>(t * beams + beam)]];
          EXPECT_EQ(key, Path(path.begin(), path.begin() + t)) << "slot " << slot << ", beam " << beam << ", position " << t;
        }
        now.push_back(path);
      }
      EXPECT_EQ(static_cast<std::int64_t>(lines.size()), length);
      lines.push_back(std::move(now));
    }
  }

  struct Kinds final : Encoded {
    std::vector<int> kinds;
  };
  Lab& lab_;
  const Table& table_;
  std::int64_t room_, taken_ = 0;
  Capacity capacity_;
  Tensor hidden_;
  Projection projection_;
  std::map<std::int64_t, std::int64_t> reserved_, limits_, source_tokens_;
  std::map<std::int64_t, int> kind_of_slot_;
  std::map<std::int64_t, std::vector<std::vector<Path>>> cache_;  // slot, position, line
};

/// What a sentence's search came to.
struct Outcome {
  std::vector<Hypothesis> hypotheses;  // best first
  std::int32_t steps = 0;
};
inline Outcome outcome_of(const SearchResult& result) {
  Outcome outcome{result.hypotheses(), result.steps()};
  EXPECT_EQ(outcome.hypotheses.size(), static_cast<std::size_t>(result.count()));
  if (result.count() > 0) {
    EXPECT_EQ(outcome.hypotheses[0].length, result.best_length());
    EXPECT_EQ(outcome.hypotheses[0].ended, result.best_ended());
  }
  return outcome;
}

/// One sentence of a kind alone on a model, in one of its slots.
inline Outcome decode_with(TableModel& model, Lab& lab, const SearchRules& rules, std::int32_t limit, int kind, std::int64_t all_slots, std::int32_t slot) {
  model.begin({.slots = all_slots, .beams = rules.beams, .longest_target = limit});
  Search search(*lab, lab.queue(), rules, all_slots, limit);
  const std::vector<std::int32_t> slots{slot}, limits{limit}, ids{kind};
  const Source source{ids, limit};
  model.reserve(slot, source);
  model.install(lab.queue(), *model.encode(lab.queue(), {&source, 1}), 0, slots);
  search.start(slots, limits);
  const StepRows rows{lab.put(slots), 1, rules.beams};
  for (int steps = 0;; ++steps) {
    search.step(model.step(lab.queue(), search.state(), rows), model.projection(), rows);
    if (reinterpret_cast<const std::int32_t*>(search.read_done()->wait().data())[slot]) break;
    if (steps > limit) {
      ADD_FAILURE() << "not done at its limit";
      break;
    }
  }
  return outcome_of(search.collect(slots).at(0));
}

/// In the second of three slots.
inline Outcome decode_alone(Lab& lab, const Table& table, const SearchRules& rules, std::int32_t limit, int kind = 0) {
  TableModel model(lab, table);
  return decode_with(model, lab, rules, limit, kind, 3, 1);
}

}  // namespace xlate::test
