// Makes a tree of the tags of a line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tokenization/markup.h"
#include "tokenization/text_atoms.h"

namespace xlate {

/// Holds a pair of tags, or a tag without a partner.
struct MarkupNode {
  std::int32_t open = -1, close = -1;  // the numbers of its tags; `close` is −1 without a pair
  std::size_t parent = 0;
  // It stands around these atoms of the text. A node without any stands before atom `first`.
  std::size_t first = 0, last = 0;

  bool is_empty() const { return first == last; }
};

/// Returns the tree of a line as a list. Node 0 is the line as a whole. Each other node is behind
/// its parent, and siblings are in the order of the line.
std::vector<MarkupNode> tree_of(const Markup&, const std::vector<TextAtom>& atoms);

}  // namespace xlate
