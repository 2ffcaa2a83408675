// This is a second, slow implementation of docs/search.md that tests compare with. It uses plain
// vectors and double precision, and sorts all K·V candidates.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "tests/table_model.h"

namespace xlate::test {

struct ReferenceResult {
  std::vector<Hypothesis> hypotheses;
  int steps = 0;
  /// This is the smallest difference on which a decision depended. Where it is close to the
  /// rounding errors of float32, another result is equally right. Equal logits of one row do not
  /// count, because they are equal in any arithmetic.
  double margin = std::numeric_limits<double>::infinity();
};

/// Returns the smallest margin at which float32 must decide as double precision does. The margin
/// allows for sums of tens of log-probabilities; on a GPU the exponential leaves an error of about
/// 2⁻²² in each.
inline double decidable(const BackendUnderTest& backend) { return backend.cuda ? 4e-5 : 1e-5; }

class ReferenceSearch {
 public:
  /// The limit counts the given tokens with which the target begins.
  ReferenceSearch(const Table& table, const SearchRules& rules, int limit, int kind,
                  std::vector<std::int32_t> prefix = {})
      : table_(table), rules_(rules), limit_(limit), kind_(kind), prefix_(std::move(prefix)) {}

  ReferenceResult run() {
    rules_.beams == 1 ? greedy() : beam();
    return result_;
  }

  /// Returns the log-probabilities of the token behind the generated `ids`. They are −∞ for tokens
  /// that may not be chosen.
  std::vector<double> log_probabilities(const std::vector<std::int32_t>& ids) const {
    const int v = table_.vocabulary, position = static_cast<int>(ids.size()),
              last = ids.empty() ? rules_.start : ids.back();
    std::vector<double> row(table_.row(kind_, position, last),
                            table_.row(kind_, position, last) + v);
    if (rules_.beams > 1) log_softmax(row);
    apply_row_rules(ids, row);
    if (rules_.beams == 1) log_softmax(row);
    for (const std::int32_t id : rules_.never_chosen) row[static_cast<std::size_t>(id)] = kNone;
    if (rules_.renormalize) log_softmax(row);
    if (const std::int32_t forced = forced_at(position); forced >= 0) {
      row.assign(static_cast<std::size_t>(v), kNone);
      row[static_cast<std::size_t>(forced)] = 0;
    }
    return row;
  }

 private:
  int given() const { return static_cast<int>(prefix_.size()); }
  // Returns the only token that may follow so many others, or −1.
  std::int32_t forced_at(int position) const {
    return position + 1 == limit_ && rules_.forced_end >= 0 ? rules_.forced_end
           : position < given() ? prefix_[static_cast<std::size_t>(position)]
           : position == 0      ? rules_.forced_first
                                : -1;
  }
  static constexpr double kNone = -std::numeric_limits<double>::infinity();
  struct Live {
    std::vector<std::int32_t> ids;
    double sum;
  };
  struct Candidate {
    double value;
    int parent, token;
  };

  // Applies the penalty, the n-gram bans and the minimum length to logits (greedy) or
  // log-probabilities.
  void apply_row_rules(const std::vector<std::int32_t>& generated, std::vector<double>& row) const {
    std::vector<std::int32_t> ids{rules_.start};
    ids.insert(ids.end(), generated.begin(), generated.end());
    const double penalty = rules_.repetition_penalty;
    for (const std::int32_t id : std::set<std::int32_t>(ids.begin(), ids.end())) {
      double& value = row[static_cast<std::size_t>(id)];
      value = value < 0 ? value * penalty : value / penalty;
    }
    const auto n = static_cast<std::size_t>(rules_.no_repeat_ngram);
    std::set<std::vector<std::int32_t>> ngrams;
    for (std::size_t i = 0; n > 0 && i + n <= ids.size(); ++i)
      ngrams.emplace(ids.data() + i, ids.data() + i + n);
    for (std::size_t token = 0; token < row.size(); ++token) {
      std::vector<std::int32_t> longer = ids;
      longer.push_back(static_cast<std::int32_t>(token));
      if (longer.size() >= n && ngrams.contains({longer.end() - static_cast<int>(n), longer.end()}))
        row[token] = kNone;
    }
    for (const std::int32_t end : rules_.ends) {
      if (std::ssize(generated) - given() < rules_.min_length)
        row[static_cast<std::size_t>(end)] = kNone;
    }
  }
  static void log_softmax(std::vector<double>& row) {
    const double max = *std::max_element(row.begin(), row.end());
    if (max == kNone) return;
    double sum = 0;
    for (const double x : row) sum += std::exp(x - max);
    for (double& x : row) x -= max + std::log(sum);
  }
  double divisor(int n) const {
    return static_cast<float>(std::pow(n, static_cast<double>(rules_.length_penalty)));
  }
  void decide(double a, double b) {
    if (std::isfinite(a) && std::isfinite(b))
      result_.margin = std::min(result_.margin, std::fabs(a - b));
  }
  Hypothesis hypothesis(std::vector<std::int32_t> ids, double sum) const {
    const int n = static_cast<int>(ids.size()) - given();
    const bool ended = rules_.is_end(ids.back());
    if (ended) ids.pop_back();
    return {std::move(ids), static_cast<float>(sum / divisor(n)), static_cast<float>(sum), n,
            ended};
  }

  void greedy() {
    std::vector<std::int32_t> ids;
    double sum = 0;
    do {
      const auto row = log_probabilities(ids);
      // max_element returns the first of equal values.
      const auto best = std::max_element(row.begin(), row.end());
      for (auto other = row.begin(); other != row.end(); ++other) {
        if (*other != *best) decide(*best, *other);
      }
      if (*best == kNone) {
        // No token may be chosen any more, and nothing is found.
        result_.steps = limit_;
        return;
      }
      ids.push_back(static_cast<std::int32_t>(best - row.begin()));
      sum += *best;
    } while (static_cast<int>(ids.size()) <= given() ||
             (!rules_.is_end(ids.back()) && static_cast<int>(ids.size()) < limit_));
    result_.steps = static_cast<int>(ids.size());
    result_.hypotheses = {hypothesis(ids, sum)};
  }

  // Returns the best candidates of a group. An id loses the diversity for each time that it is
  // among the `chosen` ones, except where it is forced.
  std::vector<Candidate> best_candidates(const std::vector<Live>& live,
                                         const std::vector<std::int32_t>& chosen) {
    std::vector<Candidate> all;
    for (std::size_t k = 0; k < live.size(); ++k) {
      auto row = log_probabilities(live[k].ids);
      for (const std::int32_t id : chosen) {
        if (forced_at(static_cast<int>(live[k].ids.size())) < 0)
          row[static_cast<std::size_t>(id)] -= static_cast<double>(rules_.diversity);
      }
      for (std::size_t v = 0; v < row.size(); ++v)
        all.push_back({live[k].sum + row[v], static_cast<int>(k), static_cast<int>(v)});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Candidate& a, const Candidate& b) { return a.value > b.value; });
    const std::size_t count = live.size() * std::max<std::size_t>(2, 1 + rules_.ends.size());
    for (std::size_t i = 0; i + 1 < all.size() && i < count; ++i) {
      const auto times = [&](const Candidate& candidate) {
        return std::count(chosen.begin(), chosen.end(), candidate.token);
      };
      const bool equal_in_a_row = all[i].value == all[i + 1].value &&
                                  all[i].parent == all[i + 1].parent &&
                                  times(all[i]) == times(all[i + 1]);
      if (all[i].value > -1e8 && all[i + 1].value > -1e8 && !equal_in_a_row)
        decide(all[i].value, all[i + 1].value);
    }
    if (all.size() > count) all.resize(count);
    return all;
  }

  // Holds a group of beams. Without diverse search there is one.
  struct Group {
    std::vector<Live> live;
    std::vector<Hypothesis> finished{};
    bool done = false;
  };

  void finish(Hypothesis entry, std::vector<Hypothesis>& list) {
    for (const Hypothesis& other : list) {
      if (other.length != entry.length)
        // The order of hypotheses that end in the same step was decided among the candidates.
        decide(other.score, entry.score);
    }
    const auto after = std::find_if(list.begin(), list.end(), [&](const Hypothesis& other) {
      return other.score < entry.score;
    });
    list.insert(after, std::move(entry));
    if (list.size() > group_beams()) list.pop_back();
  }

  bool is_done(const Group& group, double best, int n) {
    if (group.finished.size() < group_beams()) return false;
    if (rules_.early_stopping == EarlyStopping::kTrue) return true;
    const int m =
        rules_.early_stopping == EarlyStopping::kNever && rules_.length_penalty > 0 ? limit_ : n;
    const double reach = static_cast<float>(best / divisor(m - given())),
                 worst = group.finished.back().score;
    decide(reach, worst);
    return reach <= worst;
  }

  std::size_t group_beams() const { return static_cast<std::size_t>(rules_.group_beams()); }

  // Advances a group to n tokens, and adds the ids that it chooses.
  void advance(Group& group, int n, std::vector<std::int32_t>& chosen) {
    const auto candidates = best_candidates(group.live, chosen);
    std::vector<Live> next;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& candidate = candidates[i];
      std::vector<std::int32_t> ids = group.live[static_cast<std::size_t>(candidate.parent)].ids;
      ids.push_back(candidate.token);
      const bool ends = n > given() && rules_.is_end(candidate.token);
      if (!ends && next.size() < group_beams() && candidate.value > kNone) {
        next.push_back({ids, candidate.value});
        if (candidate.value > -1e8) chosen.push_back(candidate.token);
      }
      if ((ends || n == limit_) && i < group_beams() && candidate.value > -1e8)
        finish(hypothesis(std::move(ids), candidate.value), group.finished);
    }
    group.done = n == limit_ || is_done(group, next.empty() ? kNone : next.front().sum, n);
    while (next.size() < group_beams())
      next.push_back({std::vector<std::int32_t>(static_cast<std::size_t>(n), rules_.start), kNone});
    group.live = std::move(next);
  }

  void beam() {
    std::vector<Group> groups(static_cast<std::size_t>(rules_.beam_groups));
    for (Group& group : groups) {
      group.live.assign(group_beams(), {{}, -1e9});
      group.live[0].sum = 0;
    }
    const auto done = [](const Group& group) { return group.done; };
    while (!std::all_of(groups.begin(), groups.end(), done)) {
      ++result_.steps;
      std::vector<std::int32_t> chosen;
      for (Group& group : groups) {
        if (!group.done) advance(group, result_.steps, chosen);
      }
    }
    auto& all = result_.hypotheses;
    for (const Group& group : groups) {
      for (const Hypothesis& entry : group.finished) {
        // The order of equal hypotheses of two groups does not matter.
        for (const Hypothesis& other : all) {
          if (other.ids != entry.ids) decide(other.score, entry.score);
        }
      }
      all.insert(all.end(), group.finished.begin(), group.finished.end());
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  }

  const Table& table_;
  const SearchRules& rules_;
  const int limit_, kind_;
  const std::vector<std::int32_t> prefix_;
  ReferenceResult result_;
};

}  // namespace xlate::test
