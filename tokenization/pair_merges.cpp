// Merges few symbols by looking through all pairs, and many symbols with a heap.
#include "tokenization/pair_merges.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <queue>

namespace xlate {
namespace {

// More symbols are merged with a heap. Looking through all pairs for each merge is faster for
// fewer.
constexpr std::size_t kFew = 32;

constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

}  // namespace

PairMerges::PairMerges(std::size_t count)
    : rules_(std::bit_ceil(2 * count + 2)), shift_(64 - std::countr_zero(rules_.size())) {}

void PairMerges::add(std::int32_t left, std::int32_t right, std::uint32_t rank,
                     std::int32_t merged) {
  const std::uint64_t pair = pair_of(left, right);
  rules_[place_of(pair)] = {pair, rank, merged};
}

void PairMerges::merge(std::vector<std::int32_t>& symbols, std::size_t first) const {
  if (symbols.size() - first <= kFew)
    merge_few(symbols, first);
  else
    merge_many(symbols, first);
}

// Returns the place of a pair in the table, or the free place where it belongs.
std::size_t PairMerges::place_of(std::uint64_t pair) const {
  const std::size_t mask = rules_.size() - 1;
  // The multiplier is 2^64 divided by the golden ratio (Knuth's multiplicative hashing). Only the
  // highest bits of the product depend on both pieces.
  std::size_t place = static_cast<std::size_t>(pair * 0x9E3779B97F4A7C15u >> shift_);
  while (rules_[place].pair != pair && rules_[place].pair != kNoPair) place = (place + 1) & mask;
  return place;
}

const PairMerges::Rule* PairMerges::find(std::int32_t left, std::int32_t right) const {
  const Rule& merge = rules_[place_of(pair_of(left, right))];
  return merge.pair == kNoPair ? nullptr : &merge;
}

// Merges the symbols from place `first` on.
void PairMerges::merge_few(std::vector<std::int32_t>& symbols, std::size_t first) const {
  std::size_t count = symbols.size() - first;
  if (count < 2) return;
  std::int32_t* pieces = symbols.data() + first;
  // Pair i is made of the pieces i and i + 1.
  std::array<std::uint32_t, kFew> ranks;
  std::array<std::int32_t, kFew> merged;
  const auto look_up = [&](std::size_t pair) {
    const Rule* merge = find(pieces[pair], pieces[pair + 1]);
    ranks[pair] = merge ? merge->rank : kNoRank;
    merged[pair] = merge ? merge->merged : 0;
  };
  for (std::size_t pair = 0; pair + 1 < count; ++pair) look_up(pair);
  while (count > 1) {
    // The first of equal ranks is the leftmost.
    const auto best = static_cast<std::size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(count - 1)) -
        ranks.begin());
    if (ranks[best] == kNoRank) break;
    pieces[best] = merged[best];
    for (std::size_t i = best + 1; i + 1 < count; ++i) pieces[i] = pieces[i + 1];
    for (std::size_t i = best + 1; i + 2 < count; ++i) {
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  symbols.resize(first + count);
}

// Does the same with a heap of pairs. The pieces form a list, so that a merge changes only its
// neighbourhood. An entry of the heap counts only as long as the pair at its place is the same.
void PairMerges::merge_many(std::vector<std::int32_t>& symbols, std::size_t first) const {
  struct Node {
    std::int32_t id;
    std::uint32_t previous, next;
  };
  struct Entry {
    std::uint32_t rank, place;
    std::int32_t left, right, merged;
    // The heap gives the lowest rank first, and of equal ranks the leftmost place.
    bool operator<(const Entry& other) const {
      return rank != other.rank ? rank > other.rank : place > other.place;
    }
  };
  constexpr std::uint32_t kEnd = std::numeric_limits<std::uint32_t>::max();
  const auto count = static_cast<std::uint32_t>(symbols.size() - first);
  std::vector<Node> nodes(count);
  for (std::uint32_t i = 0; i < count; ++i)
    nodes[i] = {symbols[first + i], i > 0 ? i - 1 : kEnd, i + 1 < count ? i + 1 : kEnd};
  std::vector<Entry> entries;
  const auto entry_at = [&](std::uint32_t place, const auto& use) {
    if (place == kEnd || nodes[place].next == kEnd) return;
    const std::int32_t left = nodes[place].id, right = nodes[nodes[place].next].id;
    if (const Rule* merge = find(left, right))
      use(Entry{merge->rank, place, left, right, merge->merged});
  };
  for (std::uint32_t i = 0; i < count; ++i)
    entry_at(i, [&](const Entry& entry) { entries.push_back(entry); });
  std::priority_queue<Entry> heap(std::less<Entry>{}, std::move(entries));
  while (!heap.empty()) {
    const Entry entry = heap.top();
    heap.pop();
    Node& node = nodes[entry.place];
    // A piece that was merged into the one before it has the id −1.
    if (node.id != entry.left || node.next == kEnd || nodes[node.next].id != entry.right) continue;
    Node& gone = nodes[node.next];
    node.id = entry.merged;
    node.next = gone.next;
    gone.id = -1;
    if (node.next != kEnd) nodes[node.next].previous = entry.place;
    const auto push = [&](const Entry& made) { heap.push(made); };
    entry_at(node.previous, push);
    entry_at(entry.place, push);
  }
  symbols.resize(first);
  for (std::uint32_t i = 0; i != kEnd; i = nodes[i].next) symbols.push_back(nodes[i].id);
}

}  // namespace xlate
