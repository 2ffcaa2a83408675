// Finds the places of tags in a translation.
#pragma once

#include <cstddef>
#include <vector>

#include "tokenization/atom_alignment.h"
#include "tokenization/markup.h"
#include "tokenization/markup_tree.h"

namespace xlate {

/// Holds the atoms of the translation that a node stands around. Where there are none, it stands
/// before atom `first`.
struct TagPlace {
  std::size_t first = 0, last = 0;
  bool is_empty() const { return first == last; }
};

/// Returns the place of each node of a tree. A node lies within its parent, and siblings do not
/// overlap. The text of the markup must be that of the alignment's source.
std::vector<TagPlace> places_of(const Markup&, const std::vector<MarkupNode>& tree,
                                const AtomAlignment&);

}  // namespace xlate
