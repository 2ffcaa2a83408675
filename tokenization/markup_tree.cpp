// Implements the tree of tags.
#include "tokenization/markup_tree.h"

#include <algorithm>

namespace xlate {

std::vector<MarkupNode> tree_of(const Markup& markup, const std::vector<TextAtom>& atoms) {
  std::vector<MarkupNode> nodes{{.last = atoms.size()}};
  std::vector<std::size_t> open{0};
  std::size_t ended = 0;  // So many atoms end before the present tag.
  for (std::size_t i = 0; i < markup.tags.size(); ++i) {
    const MarkupTag& tag = markup.tags[i];
    while (ended < atoms.size() && atoms[ended].range.end <= tag.at) ++ended;
    // A tag inside a word counts as one beside it.
    const bool inside = ended < atoms.size() && atoms[ended].range.begin < tag.at;
    const std::size_t behind = ended + (inside ? 1 : 0);
    if (tag.kind == MarkupTag::Kind::kEnd && tag.partner >= 0) {
      MarkupNode& node = nodes[open.back()];
      const MarkupTag& start = markup.tags[static_cast<std::size_t>(tag.partner)];
      node.close = static_cast<std::int32_t>(i);
      node.last = start.at == tag.at ? node.first : std::max(node.first, behind);
      open.pop_back();
      continue;
    }
    const std::size_t place = tag.kind == MarkupTag::Kind::kEnd ? behind : ended;
    nodes.push_back({.open = static_cast<std::int32_t>(i),
                     .parent = open.back(),
                     .first = place,
                     .last = place});
    if (tag.partner >= 0) open.push_back(nodes.size() - 1);
  }
  return nodes;
}

}  // namespace xlate
