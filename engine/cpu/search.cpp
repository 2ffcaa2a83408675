// Performs a step of search on the CPU (docs/search.md). First one scan of the vocabulary, in
// chunks whose logits stay in the cache, finds the sum for the log-softmax and the best tokens of
// each row. Where row rules apply, whole rows of logits are stored instead. Then each sentence
// selects its hypotheses.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/cpu/cpu_backend.h"
#include "engine/cpu/loops.h"
#include "engine/cpu/row_rules.h"
#include "engine/cpu/sampler.h"
#include "engine/cpu/slot_search.h"

namespace xlate::cpu {
namespace {

constexpr std::int64_t kChunk = kVocabularyChunk;
static_assert(kChunk % PackedMatrix::kMostColumns == 0);
constexpr std::int64_t kRowBlock = kMostProductRows;

// Keeps the `limit` best of the tokens that it is offered, which come in ascending order of ids.
// The list is sorted, best first.
struct BestTokens {
  Scored* list;
  int& count;
  int limit;
  // Returns what a logit must be above to be kept.
  float least() const { return count < limit ? kMinusInfinity : list[limit - 1].logit; }
  // Takes a token whose logit is above that.
  void take(Scored token) {
    int at = count < limit ? count++ : limit - 1;
    for (; at > 0 && better(token, list[at - 1]); --at) list[at] = list[at - 1];
    list[at] = token;
  }
  // Is offered consecutive tokens from `first` on. Most blocks have none to be kept.
  void offer(std::span<const float> logits, std::int64_t first) {
    constexpr std::size_t kBlock = 64;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
      const std::size_t end = std::min(begin + kBlock, logits.size());
      if (!(largest_of(logits.data() + begin, static_cast<std::int64_t>(end - begin)) > least()))
        continue;
      for (std::size_t i = begin; i < end; ++i) {
        if (logits[i] > least())
          take({logits[i], static_cast<std::int32_t>(first + static_cast<std::int64_t>(i))});
      }
    }
  }
};

// Has the weights of n ids of the vocabulary from `first` on, which is a multiple of kChunk.
struct ChunkWeights {
  ChunkWeights(const PackedMatrix& weight, std::int64_t first, Scratch& scratch)
      : weight(weight), first(first), n(std::min(kChunk, weight.columns() - first)) {
    std::byte* room = scratch.room_to_widen(weight, kChunk / weight.panel_columns());
    for (std::int64_t column = first; column < first + n; column += weight.panel_columns()) {
      panels[count++] = weight.weights_of(weight.panel_at(column), room);
      room += weight.panel_bytes();
    }
  }
  const PackedMatrix& weight;
  std::int64_t first, n;
  // There are `count` panels.
  std::array<const void*, kChunk / (PackedMatrix::kMostColumns / 2)> panels;
  std::size_t count = 0;
};

// Computes the logits of `rows` rows from `first_row` on, at most kRowBlock, over a chunk of the
// vocabulary, and writes them to `logits` with this stride. `sums` is scratch for a panel.
void project(const ProductInputs& hidden, const ChunkWeights& chunk, const Projection& projection,
             std::int64_t first_row, std::int64_t rows, float* sums, float* logits,
             std::int64_t stride) {
  const float* biases = projection.linear.bias ? projection.linear.bias.as<float>() : nullptr;
  const PackedMatrix& weight = chunk.weight;
  std::int64_t column = chunk.first;
  for (std::size_t p = 0; p < chunk.count; ++p) {
    const std::int64_t panel = weight.panel_at(column), columns = weight.columns_of(panel);
    weight.multiply(chunk.panels[p], hidden, first_row, rows, sums);
    for (std::int64_t i = 0; i < rows; ++i) {
      float* out = logits + i * stride + (column - chunk.first);
      weight.finish(panel, hidden, first_row + i, sums + i * weight.panel_columns(),
                    biases ? biases + column : nullptr, Activation::kNone, out);
      if (projection.softcap != 0) cap_row(out, 1, projection.softcap, columns);
    }
    column += columns;
  }
}

}  // namespace

void CpuBackend::start_slots(Queue&, const SearchRules& rules, std::span<const SlotStart> starts,
                             const SearchState& state) {
  for (const SlotStart& start : starts) {
    const std::int64_t slot = start.slot;
    for (std::int64_t k = 0; k < state.beams; ++k) {
      state.token[slot * state.beams + k] = start.start;
      // Each group begins with one hypothesis.
      state.score[slot * state.beams + k] = k % rules.group_beams() == 0 ? 0 : kDead;
    }
    state.length[slot] = 0;
    state.limit[slot] = start.limit;
    state.forced_first[slot] = start.forced_first;
    state.start[slot] = start.start;
    if (state.tokens_before) state.tokens_before[slot] = start.tokens_before;
    if (state.prefix) state.prefix_tokens[slot] = start.prefix_tokens;
    if (state.draws) state.draws[slot] = {start.line, start.draw, 0};
    state.done[slot] = 0;
    state.finished_count[slot] = 0;
    for (std::int64_t b = 0; state.group_done && b < rules.beam_groups; ++b)
      state.group_done[slot * rules.beam_groups + b] =
          state.group_finished_count[slot * rules.beam_groups + b] = 0;
  }
}

// Computes the logits of all rows over one chunk of the vocabulary, in blocks.
void CpuBackend::scan_chunk(const VocabularyScan& scan, std::int64_t split, std::int64_t chunk,
                            Scratch& scratch) {
  const ChunkWeights weights(scan.weight, chunk * kChunk, scratch);
  float* logits = scratch.numbers_of(kRowBlock * kChunk);
  for (std::int64_t first = 0; first < scan.hidden.count; first += kRowBlock) {
    const std::int64_t rows = std::min(kRowBlock, scan.hidden.count - first);
    project(scan.hidden, weights, scan.projection, first, rows, scratch.sums, logits, weights.n);
    for (std::int64_t i = 0; i < rows; ++i)
      scan_row(scan, split, chunk, first + i,
               {logits + i * weights.n, static_cast<std::size_t>(weights.n)});
  }
}

// Stores the maximum and the sum of a row's logits over one chunk, and offers the logits to the
// list of the row's best tokens.
void CpuBackend::scan_row(const VocabularyScan& scan, std::int64_t split, std::int64_t chunk,
                          std::int64_t row, std::span<float> logits) {
  const std::int64_t first = chunk * kChunk, n = std::ssize(logits);
  MaxSum sum = sum_logits(logits.data(), n);
  bool masked = false;
  for (const std::int32_t id : scan.rules.never_chosen) {
    if (id < first || id >= first + n) continue;
    logits[static_cast<std::size_t>(id - first)] = kMinusInfinity;
    masked = true;
  }
  // Masking ids before the softmax is the same as applying log-softmax once more afterwards.
  if (masked && scan.rules.renormalize && !std::isnan(sum.sum)) sum = sum_logits(logits.data(), n);
  search_.sums[static_cast<std::size_t>(chunk * scan.hidden.count + row)] = sum;
  const std::int64_t list = split * scan.hidden.count + row;
  BestTokens best{search_.best.data() + list * scan.count,
                  search_.best_count[static_cast<std::size_t>(list)], scan.count};
  // Ids ascend, so an equal logit in this chunk has a larger id and loses.
  if (sum.max > best.least()) best.offer(logits, first);
}

// Adds the sums of the chunks in the order of the chunks. The log-sum of a row is NaN if a logit is
// +∞ or NaN, and −∞ if all logits are −∞.
void CpuBackend::sum_chunks(std::int64_t rows, std::int64_t chunks) {
  search_.log_sums.resize(static_cast<std::size_t>(rows));
  each_row(pool_, rows, [&](std::int64_t row) {
    const auto sum_of = [&](std::int64_t chunk) {
      return search_.sums[static_cast<std::size_t>(chunk * rows + row)];
    };
    float max = kMinusInfinity, sum = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) max = std::max(max, sum_of(chunk).max);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      if (const MaxSum part = sum_of(chunk); part.sum != 0)
        sum += part.sum * std::exp(part.max - max);
    }
    search_.log_sums[static_cast<std::size_t>(row)] = max + std::log(sum);
  });
}

// Leaves in search_ each row's log-sum and its `count` best tokens of each split of the vocabulary,
// which is what a thread has scanned. Returns the number of splits.
std::int64_t CpuBackend::find_best(Tensor hidden, const Projection& projection,
                                   const SearchRules& rules, int count) {
  const std::int64_t rows = hidden.rows,
                     chunks = (projection.linear.weight.rows + kChunk - 1) / kChunk;
  const std::int64_t splits = pool_.threads();
  search_.sums.resize(static_cast<std::size_t>(chunks * rows));
  search_.best.resize(static_cast<std::size_t>(rows * splits * count));
  search_.best_count.assign(static_cast<std::size_t>(rows * splits), 0);
  const std::shared_ptr<const PackedMatrix> weight = packed_weight(projection.linear);
  const VocabularyScan scan{inputs_of(hidden, *weight), *weight, projection, rules, splits, count};
  // A thread takes chunks in ascending order, as scan_row() needs it.
  pool_.run(chunks, [&](std::int64_t chunk, int thread) {
    scan_chunk(scan, thread, chunk, scratch_[static_cast<std::size_t>(thread)]);
  });
  sum_chunks(rows, chunks);
  return splits;
}

// Computes the logits of up to ruled_rows_ rows over the whole vocabulary.
void CpuBackend::project_rows(Tensor hidden, const Projection& projection) {
  const std::shared_ptr<const PackedMatrix> weight = packed_weight(projection.linear);
  const std::int64_t vocabulary = weight->columns();
  search_.logits.resize(static_cast<std::size_t>(hidden.rows * vocabulary));
  const ProductInputs inputs = inputs_of(hidden, *weight);
  pool_.run((vocabulary + kChunk - 1) / kChunk, [&](std::int64_t chunk, int thread) {
    Scratch& scratch = scratch_[static_cast<std::size_t>(thread)];
    const ChunkWeights weights(*weight, chunk * kChunk, scratch);
    project(inputs, weights, projection, 0, hidden.rows, scratch.sums,
            search_.logits.data() + weights.first, vocabulary);
  });
}

void CpuBackend::log_probabilities(Queue&, Tensor hidden, const Projection& projection,
                                   const std::int32_t* ids, float* out) {
  const std::int64_t vocabulary = projection.linear.weight.rows;
  for (std::int64_t first = 0; first < hidden.rows; first += ruled_rows_) {
    const std::int64_t count = std::min(ruled_rows_, hidden.rows - first);
    project_rows(hidden.row_range(first, count), projection);
    pool_.run(count, [&](std::int64_t i, int) {
      float* logits = search_.logits.data() + i * vocabulary;
      const MaxSum all = sum_logits(logits, vocabulary);
      out[first + i] = logits[ids[first + i]] - (all.max + std::log(all.sum));
    });
  }
}

// Applies the row rules to the logits of a row, and leaves its best tokens in search_ as one list
// of log-probabilities. Leaves NaN as the row's log-sum if a logit is +∞ or NaN, and else 0.
void CpuBackend::find_best_of_row(const SearchRules& rules, const SlotSearch& slot,
                                  std::int64_t beam, std::int64_t row, std::span<float> logits) {
  const bool overflow = has_overflow(logits.data(), std::ssize(logits));
  search_.log_sums[static_cast<std::size_t>(row)] =
      overflow ? std::numeric_limits<float>::quiet_NaN() : 0;
  if (overflow) return;
  apply_row_rules(rules, slot.ids_of(beam), slot.generated(), logits);
  const int count = rules.candidates();
  Scored* best = search_.best.data() + row * count;
  if (rules.sampling) {
    const auto id = draw_id(*rules.sampling, logits, slot.draw_name());
    search_.best_count[static_cast<std::size_t>(row)] = id ? 1 : 0;
    if (id) best[0] = {logits[static_cast<std::size_t>(*id)], *id};
    return;
  }
  BestTokens{best, search_.best_count[static_cast<std::size_t>(row)], count}.offer(logits, 0);
}

// Does what find_best() does where row rules apply. It has the logits of whole rows in memory,
// because a beam search applies the rules to log-probabilities.
std::int64_t CpuBackend::find_best_by_row_rules(Tensor hidden, const Projection& projection,
                                                const SearchRules& rules, const StepRows& rows,
                                                const SearchState& state) {
  const std::int64_t vocabulary = projection.linear.weight.rows;
  const auto all = static_cast<std::size_t>(hidden.rows);
  search_.best.resize(all * static_cast<std::size_t>(rules.candidates()));
  search_.best_count.assign(all, 0);
  search_.log_sums.assign(all, 0);
  for (std::int64_t first = 0; first < hidden.rows; first += ruled_rows_) {
    const std::int64_t count = std::min(ruled_rows_, hidden.rows - first);
    project_rows(hidden.row_range(first, count), projection);
    pool_.run(count, [&](std::int64_t i, int) {
      const std::int64_t row = first + i, slot = rows.slots[row / rows.beams];
      if (slot < 0 || state.done[slot]) return;
      find_best_of_row(
          rules, SlotSearch(rules, state, slot), row % rows.beams, row,
          {search_.logits.data() + i * vocabulary, static_cast<std::size_t>(vocabulary)});
    });
  }
  return 1;
}

// Returns the best tokens of a row, at most `count`. Which of them a split has found depends on the
// threads. Two logits can give the same sum with a score, and which of them is kept then must not
// depend on the threads.
std::vector<Scored> CpuBackend::best_of_row(std::int64_t row, std::int64_t splits,
                                            int count) const {
  std::vector<Scored> found;
  const std::int64_t rows = std::ssize(search_.best_count) / splits;
  for (std::int64_t list = row; list < splits * rows; list += rows) {
    const auto first = search_.best.begin() + list * count;
    found.insert(found.end(), first, first + search_.best_count[static_cast<std::size_t>(list)]);
  }
  if (splits > 1) std::sort(found.begin(), found.end(), better);
  if (std::ssize(found) > count) found.resize(static_cast<std::size_t>(count));
  return found;
}

// Returns the best continuations of the hypotheses of a group of beams, of a sentence whose rows
// begin at `first_row`. The larger value comes first, then the earlier hypothesis, then the smaller
// id.
std::vector<Candidate> CpuBackend::candidates_of(const SlotSearch& slot, const SearchRules& rules,
                                                 BeamGroup beams, std::int64_t first_row,
                                                 std::int64_t splits) const {
  std::vector<Candidate> candidates;
  const std::int32_t forced = slot.forced();
  for (std::int64_t b = beams.first; b < beams.first + beams.count; ++b) {
    const auto beam = static_cast<std::int32_t>(b);
    if (forced >= 0) {
      candidates.push_back({slot.score(beam), {forced, beam}});
      continue;
    }
    const std::int64_t row = first_row + beam;
    for (const Scored& item : best_of_row(row, splits, rules.candidates())) {
      const float log_probability = item.logit - search_.log_sums[static_cast<std::size_t>(row)];
      const float value = slot.score(beam) + (log_probability - slot.penalty(item.token));
      // A row of a beam without a hypothesis may have NaN, which std::sort cannot order.
      if (value > kMinusInfinity) candidates.push_back({value, {item.token, beam}});
    }
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (a.value != b.value) return a.value > b.value;
    return a.node.parent != b.node.parent ? a.node.parent < b.node.parent
                                          : a.node.token < b.node.token;
  });
  const auto count = static_cast<std::size_t>(rules.group_candidates());
  if (candidates.size() > count) candidates.resize(count);
  return candidates;
}

// Returns whether a live hypothesis of the group has a logit that is +∞ or NaN.
bool CpuBackend::overflows(const SlotSearch& slot, std::int64_t group, std::int64_t beams) const {
  for (std::int64_t beam = 0; beam < beams; ++beam) {
    if (slot.score(beam) > kWorthless &&
        std::isnan(search_.log_sums[static_cast<std::size_t>(group * beams + beam)]))
      return true;
  }
  return false;
}

void CpuBackend::search_step(Queue&, Tensor hidden, const Projection& projection,
                             const SearchRules& rules, const StepRows& rows,
                             const SearchState& state) {
  const int count = rules.candidates();
  const std::int64_t splits = rules.has_row_rules()
                                  ? find_best_by_row_rules(hidden, projection, rules, rows, state)
                                  : find_best(hidden, projection, rules, count);
  pool_.run(rows.groups, [&](std::int64_t group, int) {
    if (rows.slots[group] < 0 || state.done[rows.slots[group]]) return;
    SlotSearch slot(rules, state, rows.slots[group]);
    if (overflows(slot, group, rows.beams))
      slot.fail();
    else
      slot.advance([&](BeamGroup beams) {
        return candidates_of(slot, rules, beams, group * rows.beams, splits);
      });
  });
}

}  // namespace xlate::cpu
