// This SequenceModel has no network: the logits of the next token are a row of a table. The file
// also has functions that decode one sentence alone with it.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <span>

#include "engine/search.h"
#include "engine/sequence_model.h"
#include "tests/support.h"

namespace xlate::test {

/// The logits [kinds, positions, V, V] are given by the kind of the sentence, the number of tokens
/// so far, the last token and the next token. Beyond the last position its rows hold again. Such a
/// table can make search do everything that a network can.
struct Table {
  int vocabulary = 0, positions = 1, kinds = 1;
  std::vector<float> logits;

  Table(int vocabulary, int positions = 1, int kinds = 1)
      : vocabulary(vocabulary),
        positions(positions),
        kinds(kinds),
        logits(static_cast<std::size_t>(kinds) * static_cast<std::size_t>(positions) *
               static_cast<std::size_t>(vocabulary) * static_cast<std::size_t>(vocabulary)) {}
  /// Returns which element of the hidden row is one. The last hidden row is one-hot, so a product
  /// with it is exact.
  int place(int kind, int position, int last) const {
    return (kind * positions + std::min(position, positions - 1)) * vocabulary + last;
  }
  /// Rounds the logits to a backend's type.
  void round_to(DType type) {
    for (float& logit : logits) logit = static_cast<float>(rounded(type, logit));
  }
  int places() const { return kinds * positions * vocabulary; }
  float* row(int kind, int position, int last) {
    return logits.data() + static_cast<std::ptrdiff_t>(place(kind, position, last)) * vocabulary;
  }
  const float* row(int kind, int position, int last) const {
    return const_cast<Table*>(this)->row(kind, position, last);
  }
};

/// The logits of this model come from a table. The kind of a sentence is its first source id modulo
/// the number of kinds. The model writes nothing into its caches, but checks their tables.
class TableModel final : public SequenceModel {
 public:
  TableModel(Lab& lab, const Table& table) : lab_(lab), table_(table) {
    Matrix weight(table.vocabulary, table.places());
    for (std::int64_t place = 0; place < table.places(); ++place) {
      for (std::int64_t token = 0; token < table.vocabulary; ++token)
        weight(token, place) =
            table.logits[static_cast<std::size_t>(place * table.vocabulary + token)];
    }
    projection_.linear.weight = lab.put_weight(weight);
  }

  CacheShape cache_shape() const override { return {}; }
  void allocate(const Capacity& capacity) override {
    capacity_ = capacity;
    hidden_ = lab_.uninitialized(capacity.slots * capacity.beams, table_.places(), lab_.type());
  }
  void begin(const PagedCaches& caches) override { caches_ = caches; }
  std::unique_ptr<Encoded> encode(Queue&, std::span<const SourceSentence> sources) override {
    auto batch = std::make_unique<Batch>();
    std::int64_t tokens = 0;
    for (const SourceSentence& source : sources) {
      EXPECT_FALSE(source.ids.empty());
      batch->sentences.push_back(
          {source.ids[0] % table_.kinds, static_cast<std::int32_t>(source.ids.size())});
      tokens += std::ssize(source.ids);
    }
    EXPECT_LE(tokens, capacity_.encoder_tokens);
    largest_batch = std::max(largest_batch, tokens);
    return batch;
  }
  void install(Queue& queue, const Encoded& encoded, std::int64_t first,
               std::span<const std::int32_t> slots) override {
    const auto& sentences = static_cast<const Batch&>(encoded).sentences;
    ASSERT_LE(static_cast<std::size_t>(first) + slots.size(), sentences.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      EXPECT_TRUE(slots[i] >= 0 && slots[i] < capacity_.slots);
      installed_[slots[i]] = sentences[static_cast<std::size_t>(first) + i];
      paths_.erase(slots[i]);
    }
    // No slot has decoded any token yet.
    const std::vector<std::int32_t> none(static_cast<std::size_t>(capacity_.slots));
    if (!caches_.self.empty()) check_pages(queue, slots, none);
  }
  void step(const StepRows& rows, Search& search) override {
    Queue& queue = search.queue();
    const SearchState& state = search.state();
    auto slots = lab_.array<std::int32_t>(rows.slots, rows.groups, queue);
    // Empty groups come last.
    slots.erase(std::remove(slots.begin(), slots.end(), -1), slots.end());
    const auto tokens = lab_.array<std::int32_t>(state.token, state.slots * state.beams, queue);
    const auto lengths = lab_.array<std::int32_t>(state.length, state.slots, queue);
    EXPECT_LE(rows.rows(), hidden_.rows);
    EXPECT_EQ(std::set<std::int32_t>(slots.begin(), slots.end()).size(), slots.size())
        << "a slot is stepped twice";
    Matrix hidden(rows.rows(), table_.places());
    const auto done = lab_.array<std::int32_t>(state.done, state.slots, queue);
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(slots.size()) * rows.beams; ++row) {
      const std::int32_t slot = slots[static_cast<std::size_t>(row / rows.beams)];
      const std::int32_t last =
          tokens[static_cast<std::size_t>(slot * rows.beams + row % rows.beams)];
      EXPECT_TRUE(installed_.contains(slot)) << "slot " << slot << " holds no sentence";
      EXPECT_TRUE(last >= 0 && last < table_.vocabulary);
      const int kind = installed_[slot].kind;
      const std::int32_t length = lengths[static_cast<std::size_t>(slot)];
      const bool broken = kind == broken_kind && length >= broken_from;
      const std::int64_t place = table_.place(kind, length, last);
      hidden(row, place) = broken ? std::numeric_limits<float>::quiet_NaN() : 1;
    }
    std::int64_t source_tokens = 0;
    for (const std::int32_t slot : slots) source_tokens += installed_[slot].source_tokens;
    most_source_tokens = std::max(most_source_tokens, source_tokens);
    most_rows = std::max(most_rows, rows.rows());
    // Slots that are done are stepped in vain.
    std::erase_if(slots, [&](auto slot) { return done[static_cast<std::size_t>(slot)] != 0; });
    check_ancestors(queue, state, slots, lengths, tokens);
    if (!caches_.self.empty()) check_pages(queue, slots, lengths);
    const Tensor out = hidden_.row_range(0, rows.rows());
    lab_.write(hidden, out, queue);
    if (++steps == out_of_memory_at) throw OutOfMemory("no room for a step");
    search.step(out, rows, projection_);
  }
  Projection& projection() { return projection_; }
  const Capacity& capacity() const { return capacity_; }

  // Tests read these statistics.
  std::int64_t largest_batch = 0, most_rows = 0, most_source_tokens = 0;
  // The logits of sentences of this kind are NaN behind this number of tokens.
  std::int64_t broken_kind = -1, broken_from = 0;
  // The step of this number, counted from 1, throws OutOfMemory.
  std::int64_t steps = 0, out_of_memory_at = 0;

 private:
  using Path = std::vector<std::int32_t>;

  // Checks `ancestor` with keys that are the whole path to a token instead of vectors. On the beams
  // that `ancestor` names, each live hypothesis must find its own history, which the search tree
  // tells as well.
  void check_ancestors(Queue& queue, const SearchState& state,
                       const std::vector<std::int32_t>& slots,
                       const std::vector<std::int32_t>& lengths,
                       const std::vector<std::int32_t>& tokens) {
    for (const std::int32_t slot : slots) {
      const auto length = static_cast<std::int64_t>(lengths[static_cast<std::size_t>(slot)]),
                 beams = state.beams;
      auto& beam_rows = paths_[slot];
      const auto nodes =
          lab_.array<Node>(state.history + slot * state.longest * beams, length * beams, queue);
      const auto ancestors = lab_.array<std::uint8_t>(state.ancestor + slot * state.longest * beams,
                                                      length * beams, queue);
      std::vector<Path> now;
      for (std::int64_t beam = 0; beam < beams; ++beam) {
        Path path;
        std::int64_t at = beam;
        for (std::int64_t t = length; t-- > 0;
             at = nodes[static_cast<std::size_t>(t * beams + at)].parent) {
          path.insert(path.begin(), nodes[static_cast<std::size_t>(t * beams + at)].token);
        }
        EXPECT_TRUE(path.empty() ||
                    path.back() == tokens[static_cast<std::size_t>(slot * beams + beam)]);
        for (std::int64_t t = 0; t < length && t < static_cast<std::int64_t>(beam_rows.size());
             ++t) {
          const Path& key = beam_rows[static_cast<std::size_t>(t)]
                                     [ancestors[static_cast<std::size_t>(t * beams + beam)]];
          EXPECT_EQ(key, Path(path.begin(), path.begin() + t))
              << "slot " << slot << ", beam " << beam << ", position " << t;
        }
        now.push_back(path);
      }
      EXPECT_EQ(static_cast<std::int64_t>(beam_rows.size()), length);
      beam_rows.push_back(std::move(now));
    }
  }

  // Checks the page tables that the device reads. Each sentence has pages for its source and for
  // all its target tokens, the next one included, and no page belongs to two sentences.
  void check_pages(Queue& queue, std::span<const std::int32_t> slots,
                   const std::vector<std::int32_t>& lengths) {
    const auto source_lengths =
        lab_.array<std::int32_t>(caches_.source_lengths, capacity_.slots, queue);
    for (const PagedCache* cache : {&caches_.cross.front(), &caches_.self.front()}) {
      const auto table =
          lab_.array<std::int32_t>(cache->table, capacity_.slots * cache->pages_per_slot, queue);
      std::set<std::int32_t> pages;
      for (const std::int32_t slot : slots) {
        const auto s = static_cast<std::size_t>(slot);
        EXPECT_EQ(source_lengths[s], installed_[slot].source_tokens) << "slot " << slot;
        const std::int64_t tokens =
            cache == &caches_.self.front() ? lengths[s] + 1 : source_lengths[s];
        for (std::int64_t page = 0; page * cache->page_tokens < tokens; ++page) {
          const std::int32_t number =
              table[static_cast<std::size_t>(slot * cache->pages_per_slot + page)];
          EXPECT_TRUE(pages.insert(number).second)
              << "page " << number << " of slot " << slot << " is another's too";
        }
      }
    }
  }

  struct Sentence {
    int kind = 0;
    std::int32_t source_tokens = 0;
  };
  struct Batch final : Encoded {
    std::vector<Sentence> sentences;
  };
  Lab& lab_;
  const Table& table_;
  Capacity capacity_;
  PagedCaches caches_;
  Tensor hidden_;
  Projection projection_;
  // This map is indexed by slot.
  std::map<std::int64_t, Sentence> installed_;
  // This map is indexed by slot, and its paths by position and beam.
  std::map<std::int64_t, std::vector<std::vector<Path>>> paths_;
};

/// An outcome is the result of the search for one sentence.
struct Outcome {
  // The best hypothesis comes first.
  std::vector<Hypothesis> hypotheses;
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

/// Decodes one sentence of a kind alone in one of the model's slots, without caches.
inline Outcome decode_with(TableModel& model, Lab& lab, const SearchRules& rules,
                           std::int32_t limit, int kind, std::int64_t all_slots, std::int32_t slot,
                           std::vector<std::int32_t> prefix = {}) {
  model.allocate({.slots = all_slots, .beams = rules.beams, .longest_target = limit});
  const std::int64_t given = std::ssize(prefix);
  Search search(*lab, lab.queue(), rules, all_slots, limit, 0, given);
  const std::vector<std::int32_t> slots{slot}, ids{kind};
  const SlotStart start{.slot = slot,
                        .limit = limit,
                        .forced_first = rules.forced_first,
                        .start = rules.start,
                        .prefix_tokens = static_cast<std::int32_t>(given)};
  const std::span<const std::int32_t> given_ids(prefix);
  const SourceSentence source{ids, limit};
  model.install(lab.queue(), *model.encode(lab.queue(), {&source, 1}), 0, slots);
  search.start({&start, 1}, {}, {&given_ids, 1});
  const StepRows rows{lab.put(slots), 1, rules.beams};
  for (int steps = 0;; ++steps) {
    model.step(rows, search);
    if (reinterpret_cast<const std::int32_t*>(search.read_done()->wait().data())[slot]) break;
    if (steps > limit) {
      ADD_FAILURE() << "not done at its limit";
      break;
    }
  }
  return outcome_of(search.collect(slots).at(0));
}

/// Decodes one sentence alone in the second of three slots.
inline Outcome decode_alone(Lab& lab, const Table& table, const SearchRules& rules,
                            std::int32_t limit, int kind = 0,
                            std::vector<std::int32_t> prefix = {}) {
  TableModel model(lab, table);
  return decode_with(model, lab, rules, limit, kind, 3, 1, std::move(prefix));
}

}  // namespace xlate::test
