// Merges the pieces of words by rank.
#include "tokenization/pipeline/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <queue>

#include "engine/error.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Words of more pieces are merged with a heap. Looking through all pairs for each merge is faster
// for shorter ones.
constexpr std::size_t kShort = 32;

constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

std::int32_t number_at(std::string_view bytes, std::size_t place) {
  std::int32_t number = 0;
  std::memcpy(&number, bytes.data() + place * sizeof(number), sizeof(number));
  return number;
}

}  // namespace

Bpe::Bpe(const SegmentModel& settings, const Pieces& pieces, std::string_view merges,
         bool byte_level, const std::string& name)
    : settings_(settings), pieces_(pieces), byte_level_(byte_level) {
  constexpr std::size_t kMergeBytes = 3 * sizeof(std::int32_t);
  if (merges.size() % kMergeBytes != 0)
    fail("{}: merges has {} bytes, expected a multiple of {}", name, merges.size(), kMergeBytes);
  const std::size_t count = merges.size() / kMergeBytes;
  merges_.resize(std::bit_ceil(2 * count + 2));
  shift_ = 64 - std::countr_zero(merges_.size());
  for (std::size_t rank = 0; rank < count; ++rank) {
    std::array<std::int32_t, 3> ids{};
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = number_at(merges, 3 * rank + i);
      if (ids[i] < 0 || ids[i] >= pieces.size())
        fail("{}: merge {} names the id {}, expected one below {}", name, rank, ids[i],
             pieces.size());
    }
    // Of two merges of the same pair the last one counts. A merge that would make a special token
    // does not.
    if (!pieces.is_text(ids[2])) continue;
    const std::uint64_t pair = pair_of(ids[0], ids[1]);
    merges_[place_of(pair)] = {pair, static_cast<std::uint32_t>(rank), ids[2]};
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto character = static_cast<char>(byte);
    bytes_[byte] = byte_level ? pieces.id_of(byte_level_letters({&character, 1}))
                              : pieces.id_of_byte(static_cast<unsigned char>(byte));
  }
  if (!settings.whole_words) return;
  for (std::int32_t id = 0; id < pieces.size(); ++id) {
    if (!pieces.is_text(id) || pieces.piece_of(id).empty()) continue;
    std::string text;
    if (byte_level)
      append_bytes_of(pieces.piece_of(id), text);
    else
      text = pieces.piece_of(id);
    whole_words_.emplace(std::move(text), id);
  }
}

// Returns the place of a pair in the table, or the free place where it belongs.
std::size_t Bpe::place_of(std::uint64_t pair) const {
  const std::size_t mask = merges_.size() - 1;
  // The multiplier is 2^64 divided by the golden ratio (Knuth's multiplicative hashing). Only the
  // highest bits of the product depend on both pieces.
  std::size_t place = static_cast<std::size_t>(pair * 0x9E3779B97F4A7C15u >> shift_);
  while (merges_[place].pair != pair && merges_[place].pair != kNoPair) place = (place + 1) & mask;
  return place;
}

const Bpe::Merge* Bpe::find(std::int32_t left, std::int32_t right) const {
  const Merge& merge = merges_[place_of(pair_of(left, right))];
  return merge.pair == kNoPair ? nullptr : &merge;
}

// Appends the pieces that a word begins as. An unknown id comes only before the next character that
// has a piece, or at the end, also where bytes of other characters are in between: so does the
// library.
void Bpe::append_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  bool unknown_waits = false;
  const auto end_unknown = [&] {
    if (unknown_waits) symbols.push_back(settings_.unknown);
    unknown_waits = false;
  };
  const auto id_of_byte = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t bytes = byte_level_ ? 1 : character_bytes(word.substr(at));
    const std::string_view character = word.substr(at, bytes);
    at += bytes;
    const std::int32_t id = byte_level_ ? id_of_byte(character[0]) : pieces_.id_of(character);
    if (id >= 0) {
      end_unknown();
      symbols.push_back(id);
    } else if (settings_.byte_fallback &&
               std::all_of(character.begin(), character.end(),
                           [&](char byte) { return id_of_byte(byte) >= 0; })) {
      for (const char byte : character) symbols.push_back(id_of_byte(byte));
    } else if (settings_.unknown >= 0) {
      if (!settings_.fuse_unknown) end_unknown();
      unknown_waits = true;
    }
  }
  end_unknown();
}

void Bpe::segment(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (settings_.whole_words) {
    if (const auto found = whole_words_.find(std::string(word)); found != whole_words_.end()) {
      ids.push_back(found->second);
      return;
    }
  }
  const std::size_t first = ids.size();
  append_symbols(word, ids);
  if (ids.size() - first <= kShort)
    merge_short(ids, first);
  else
    merge_long(ids, first);
}

// Merges the pieces from place `first` on.
void Bpe::merge_short(std::vector<std::int32_t>& symbols, std::size_t first) const {
  std::size_t count = symbols.size() - first;
  if (count < 2) return;
  std::int32_t* pieces = symbols.data() + first;
  // Pair i is made of the pieces i and i + 1.
  std::array<std::uint32_t, kShort> ranks;
  std::array<std::int32_t, kShort> merged;
  const auto look_up = [&](std::size_t pair) {
    const Merge* merge = find(pieces[pair], pieces[pair + 1]);
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
void Bpe::merge_long(std::vector<std::int32_t>& symbols, std::size_t first) const {
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
    if (const Merge* merge = find(left, right))
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
