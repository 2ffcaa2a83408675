// Builds a Trie breadth first: finds for every node a base at which its children have free places.
#include "tokenization/trie.h"

#include <algorithm>
#include <deque>

namespace xlate {
namespace {

constexpr std::size_t kBytes = 256;
// A search must pass at least this many places before it may judge that they are nearly all taken.
constexpr std::uint32_t kDenselyTaken = 16;

// Names the keys below a node: keys [begin, end) in sorted order, which agree in their first
// `depth` bytes.
struct Range {
  std::uint32_t node;
  std::size_t begin, end, depth;
};

}  // namespace

Trie::Trie(std::vector<Key> keys) : nodes_(kBytes + 1) {
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) { return a.text < b.text; });
  std::deque<Range> waiting{{0, 0, keys.size(), 0}};
  std::vector<unsigned char> bytes;
  std::vector<std::size_t> ends;
  for (; !waiting.empty(); waiting.pop_front()) {
    Range range = waiting.front();
    if (range.begin < range.end && keys[range.begin].text.size() == range.depth)
      nodes_[range.node].value = keys[range.begin++].value;
    bytes.clear(), ends.clear();
    for (std::size_t i = range.begin; i < range.end; ++i) {
      const auto byte = static_cast<unsigned char>(keys[i].text[range.depth]);
      if (bytes.empty() || bytes.back() != byte) bytes.push_back(byte), ends.push_back(i);
      ends.back() = i + 1;
    }
    if (bytes.empty()) continue;
    const std::uint32_t base = find_base(bytes);
    nodes_[range.node].base = base;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      nodes_[base + bytes[i]].parent = range.node;
      waiting.push_back(
          {base + bytes[i], i == 0 ? range.begin : ends[i - 1], ends[i], range.depth + 1});
    }
  }
}

// Returns the first base at which the places of all these bytes, which are in ascending order, are
// free. If at least 15 of 16 places that a search passes are taken, later searches begin behind
// them. Without that, the time would grow with the square of the number of keys.
std::uint32_t Trie::find_base(const std::vector<unsigned char>& bytes) {
  const auto is_free = [&](std::uint32_t place) {
    return place >= nodes_.size() || nodes_[place].parent == kNone;
  };
  std::uint32_t place = std::max<std::uint32_t>(search_from_, bytes.front()), taken = 0;
  const std::uint32_t begin = place;
  const auto fits = [&] {
    return std::all_of(bytes.begin(), bytes.end(),
                       [&](unsigned char byte) { return is_free(place - bytes.front() + byte); });
  };
  for (; !fits(); ++place) taken += !is_free(place);
  if (place - begin >= kDenselyTaken && taken >= (place - begin) / 16 * 15) search_from_ = place;
  const std::uint32_t base = place - bytes.front();
  // A lookup reads the place of any byte, so that 256 places must exist behind the base.
  if (nodes_.size() < base + kBytes)
    nodes_.resize(std::max<std::size_t>(base + kBytes, nodes_.size() + nodes_.size() / 2));
  return base;
}

}  // namespace xlate
