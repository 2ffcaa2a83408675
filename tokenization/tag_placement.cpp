// Implements the placing of tags. Pairs around text are placed first, each parent before its
// children: around the run of atoms that has the most in common with the pair's atoms of the
// source. Then everything else is placed between those.
#include "tokenization/tag_placement.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace xlate {
namespace {

// A run gains by each atom whose larger part is aligned with atoms of the pair, and loses by each
// other one. An atom that is aligned with none hardly counts, and neither do marks, which attention
// aligns badly.
constexpr float kEven = 0.5f, kUnaligned = -0.05f, kMark = 0.2f;
// A tag that stands alone is worth as much beside a word that it stood beside as this many words on
// the side where they were. It rather stays with the word behind it, and an end tag with that
// before.
constexpr float kBeside = 3, kBesideMore = 3.5f;
// A copy of at least so many bytes is found even where nothing is aligned with it.
constexpr std::size_t kSureCopy = 6;
constexpr std::size_t kMostCopies = 16;

class Placer {
 public:
  Placer(const Markup& markup, const std::vector<MarkupNode>& tree, const AtomAlignment& alignment)
      : markup_(markup),
        tree_(tree),
        alignment_(alignment),
        source_(alignment.source()),
        target_(alignment.target()),
        places_(tree.size()),
        is_placed_(tree.size()),
        owners_(target_.size()) {}

  std::vector<TagPlace> place() {
    places_[0] = {0, target_.size()};
    is_placed_[0] = true;
    for (std::size_t node = 1; node < tree_.size(); ++node) {
      if (!tree_[node].is_empty() && is_placed_[tree_[node].parent]) place_around(node);
    }
    mark_inner_gaps();
    for (std::size_t node = 1; node < tree_.size(); ++node) {
      if (!is_placed_[node]) place_between(node);
    }
    return std::move(places_);
  }

 private:
  bool is_free(std::size_t atom, std::size_t parent) const { return owners_[atom] == parent; }

  bool is_free(const TagPlace& place, std::size_t parent) const {
    return std::all_of(owners_.begin() + static_cast<std::ptrdiff_t>(place.first),
                       owners_.begin() + static_cast<std::ptrdiff_t>(place.last),
                       [&](std::size_t owner) { return owner == parent; });
  }

  float share(std::size_t atom, const MarkupNode& node) const {
    return alignment_.share(atom, node.first, node.last);
  }

  void place_around(std::size_t number) {
    const MarkupNode& node = tree_[number];
    if (node.first >= alignment_.translated()) return;
    const MarkupNode& parent = tree_[node.parent];
    const TagPlace& room = places_[node.parent];
    std::optional<TagPlace> place;
    if (node.first == parent.first && node.last == parent.last && is_free(room, node.parent))
      place = room;
    if (!place) place = copy_of(node);
    if (!place) {
      place = best_run(node);
      if (place) fit_marks(node, *place);
    }
    if (!place) place = nearest_word(node);
    if (!place || place->is_empty()) return;
    places_[number] = *place;
    is_placed_[number] = true;
    std::fill(owners_.begin() + static_cast<std::ptrdiff_t>(place->first),
              owners_.begin() + static_cast<std::ptrdiff_t>(place->last), number);
  }

  // Returns the run of free atoms with the largest gain (Kadane's algorithm), or else the free atom
  // with the largest share. There is none if no free atom is aligned with the pair's atoms.
  std::optional<TagPlace> best_run(const MarkupNode& node) const {
    const TagPlace& room = places_[node.parent];
    TagPlace best, present{room.first, room.first};
    std::optional<TagPlace> atom;
    float best_gain = 0, gain = 0, best_share = 0;
    for (std::size_t i = room.first; i < room.last; ++i) {
      if (!is_free(i, node.parent)) {
        gain = 0;
        present.first = i + 1;
        continue;
      }
      const float own = share(i, node);
      const float value = alignment_.is_aligned(i) ? own - kEven : kUnaligned;
      gain += target_[i].is_word ? value : kMark * value;
      if (gain > best_gain) {
        best_gain = gain;
        best = {present.first, i + 1};
      }
      if (gain <= 0) {
        gain = 0;
        present.first = i + 1;
      }
      const float weight = target_[i].is_word ? own : kMark * own;
      if (weight > best_share) {
        best_share = weight;
        atom = TagPlace{i, i + 1};
      }
    }
    if (best.is_empty()) return atom;
    return best;
  }

  // Lets marks at the ends of a run in as far as the pair has marks at its ends.
  void fit_marks(const MarkupNode& node, TagPlace& place) const {
    const TagPlace& room = places_[node.parent];
    std::size_t before = 0, behind = 0;
    while (before < node.last - node.first && !source_[node.first + before].is_word) ++before;
    if (before == node.last - node.first) return;
    while (!source_[node.last - 1 - behind].is_word) ++behind;
    std::size_t first = place.first, last = place.last;
    while (first < last && !target_[first].is_word) ++first;
    if (first == last) return;
    while (!target_[last - 1].is_word) --last;
    const auto is_mark = [&](std::size_t atom) {
      return !target_[atom].is_word && is_free(atom, node.parent);
    };
    const auto touch = [&](std::size_t left) {
      return target_[left].range.end == target_[left + 1].range.begin;
    };
    for (; before > 0 && first > room.first && is_mark(first - 1) && touch(first - 1); --before)
      --first;
    for (; behind > 0 && last < room.last && is_mark(last) && touch(last - 1); --behind) ++last;
    place = {first, last};
  }

  // Returns the copy of the pair's text that is aligned best with it. Names and code are copied.
  std::optional<TagPlace> copy_of(const MarkupNode& node) const {
    const TagPlace& room = places_[node.parent];
    const std::size_t begin = source_[node.first].range.begin,
                      size = source_[node.last - 1].range.end - begin;
    if (room.is_empty()) return std::nullopt;
    const std::string_view text = alignment_.source_text().substr(begin, size);
    const std::string_view target =
        alignment_.target_text().substr(0, target_[room.last - 1].range.end);
    std::optional<TagPlace> best;
    float best_gain = 0;
    std::size_t found = target.find(text, target_[room.first].range.begin), copies = 0;
    for (; found != std::string_view::npos && copies < kMostCopies;
         found = target.find(text, found + 1), ++copies) {
      const auto place = atoms_at(found, found + size);
      if (!place || !is_free(*place, node.parent)) continue;
      float gain = size >= kSureCopy ? 0.01f : 0;
      for (std::size_t i = place->first; i < place->last; ++i)
        gain += target_[i].is_word ? share(i, node) : kMark * share(i, node);
      if (gain <= best_gain) continue;
      best_gain = gain;
      best = place;
    }
    return best;
  }

  // Returns the atoms between two bytes of the target, if atoms begin and end there.
  std::optional<TagPlace> atoms_at(std::size_t begin, std::size_t end) const {
    const auto first = std::lower_bound(
        target_.begin(), target_.end(), begin,
        [](const TextAtom& atom, std::size_t place) { return atom.range.begin < place; });
    const auto last = std::lower_bound(
        first, target_.end(), end,
        [](const TextAtom& atom, std::size_t place) { return atom.range.end < place; });
    if (last == target_.end() || first->range.begin != begin || last->range.end != end)
      return std::nullopt;
    return TagPlace{static_cast<std::size_t>(first - target_.begin()),
                    static_cast<std::size_t>(last - target_.begin()) + 1};
  }

  // Returns the free word that is nearest to where the pair's neighbours are, of two such words
  // rather one that is not aligned.
  std::optional<TagPlace> nearest_word(const MarkupNode& node) {
    constexpr std::size_t kFarthest = 3;
    const TagPlace& room = places_[node.parent];
    const std::size_t gap = best_gap(node.parent, node.first, false);
    const auto is_candidate = [&](std::size_t atom) {
      return atom >= room.first && atom < room.last && target_[atom].is_word &&
             is_free(atom, node.parent);
    };
    for (const bool aligned : {false, true}) {
      for (std::size_t distance = 0; distance < kFarthest; ++distance) {
        for (const std::size_t atom : {gap + distance, gap - 1 - distance}) {
          if (is_candidate(atom) && alignment_.is_aligned(atom) == aligned)
            return TagPlace{atom, atom + 1};
        }
        if (!aligned && distance > 0) break;
      }
    }
    return std::nullopt;
  }

  // Finds for each gap, which is that before an atom, the innermost pair that has atoms on both of
  // its sides.
  void mark_inner_gaps() {
    gaps_.assign(target_.size() + 1, 0);
    for (std::size_t node = 1; node < tree_.size(); ++node) {
      if (!is_placed_[node]) continue;
      for (std::size_t gap = places_[node].first + 1; gap < places_[node].last; ++gap)
        gaps_[gap] = node;
    }
  }

  // Places a node without atoms, or one that found no room.
  void place_between(std::size_t number) {
    const MarkupNode& node = tree_[number];
    const TagPlace& room = places_[node.parent];
    is_placed_[number] = true;
    std::size_t gap = room.first;
    if (!room.is_empty()) {
      const bool is_end =
          node.close < 0 &&
          markup_.tags[static_cast<std::size_t>(node.open)].kind == MarkupTag::Kind::kEnd;
      gap = best_gap(node.parent, node.first, is_end);
    }
    places_[number] = {gap, gap};
  }

  // Returns the gap of a parent's place that has most of the words that are aligned with atoms
  // before a place of the source on its left, and the others on its right. A gap beside the nearest
  // of these is better than others. Of equal ones it is the first or the last.
  std::size_t best_gap(std::size_t parent, std::size_t place, bool takes_first) {
    const TagPlace& room = places_[parent];
    if (place <= tree_[parent].first) return room.first;
    if (place >= std::min(tree_[parent].last, alignment_.translated())) return room.last;
    if (last_gap_.matches(parent, place, takes_first)) return last_gap_.gap;
    const auto before_place = [&](std::size_t atom) {
      return alignment_.main(atom) < static_cast<std::int32_t>(place);
    };
    std::int32_t left = -1, right = -1;  // the nearest aligned atoms of the source on either side
    float gain = 0;
    for (std::size_t i = room.first; i < room.last; ++i) {
      const std::int32_t main = alignment_.main(i);
      if (main < 0) continue;
      if (before_place(i))
        left = std::max(left, main);
      else
        right = right < 0 ? main : std::min(right, main);
      if (!before_place(i)) gain += weight(i);
    }
    std::size_t best = room.first;
    float best_gain = -1;
    std::int32_t last = -1;  // the source of the last aligned atom before the gap
    const std::vector<std::int32_t> next = next_mains(room);
    for (std::size_t gap = room.first; gap <= room.last; ++gap) {
      if (gap > room.first && alignment_.main(gap - 1) >= 0) {
        last = alignment_.main(gap - 1);
        gain += before_place(gap - 1) ? weight(gap - 1) : -weight(gap - 1);
      }
      if (gap > room.first && gap < room.last && !gaps_.empty() && gaps_[gap] != parent) continue;
      const std::int32_t following = next[gap - room.first];
      const float value =
          gain + (last >= 0 && last == left ? (takes_first ? kBesideMore : kBeside) : 0) +
          (following >= 0 && following == right ? (takes_first ? kBeside : kBesideMore) : 0);
      if (value > best_gain || (value == best_gain && !takes_first)) {
        best_gain = value;
        best = gap;
      }
    }
    last_gap_ = {parent, place, takes_first, !gaps_.empty(), best};
    return best;
  }

  float weight(std::size_t atom) const { return target_[atom].is_word ? 1 : kMark; }

  // Returns for each gap of a place the source of the next aligned atom in it, or −1.
  std::vector<std::int32_t> next_mains(const TagPlace& room) const {
    std::vector<std::int32_t> next(room.last - room.first + 1, -1);
    for (std::size_t i = room.last; i-- > room.first;) {
      const std::int32_t main = alignment_.main(i);
      next[i - room.first] = main >= 0 ? main : next[i - room.first + 1];
    }
    return next;
  }

  // Runs of tags at one place of the source have one gap.
  struct Gap {
    std::size_t parent = 0, place = 0;
    bool takes_first = false, is_final = false;
    std::size_t gap = 0;
    bool matches(std::size_t other_parent, std::size_t other_place, bool first) const {
      return place > 0 && parent == other_parent && place == other_place && takes_first == first &&
             is_final;
    }
  };

  const Markup& markup_;
  const std::vector<MarkupNode>& tree_;
  const AtomAlignment& alignment_;
  const std::vector<TextAtom>&source_, &target_;
  std::vector<TagPlace> places_;
  std::vector<bool> is_placed_;
  std::vector<std::size_t> owners_;  // the innermost node around each atom of the target
  std::vector<std::size_t> gaps_;    // mark_inner_gaps() fills them in
  Gap last_gap_;
};

}  // namespace

std::vector<TagPlace> places_of(const Markup& markup, const std::vector<MarkupNode>& tree,
                                const AtomAlignment& alignment) {
  return Placer(markup, tree, alignment).place();
}

}  // namespace xlate
