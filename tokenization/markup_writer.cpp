// Implements the writing of translations with tags.
#include "tokenization/markup_writer.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include "tokenization/markup_tree.h"
#include "tokenization/tag_placement.h"
#include "tokenization/utf8.h"

namespace xlate {
namespace {

// Holds a tag that stands before an atom of the translation.
struct PlacedTag {
  std::size_t atom;
  const MarkupTag* tag;
};

// Returns the tags in the order of the translation. The tree is walked without recursion, because
// it may be as deep as a line is long.
std::vector<PlacedTag> ordered_tags(const Markup& markup, const std::vector<MarkupNode>& tree,
                                    const std::vector<TagPlace>& places) {
  // The children of each node stand together, in the order of the translation. At one place, those
  // without atoms come first.
  std::vector<std::size_t> children(tree.size() - 1);
  std::iota(children.begin(), children.end(), std::size_t{1});
  const auto key = [&](std::size_t node) {
    return std::tuple(tree[node].parent, places[node].first, !places[node].is_empty(), node);
  };
  std::sort(children.begin(), children.end(),
            [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  // The next child of each node
  std::vector<std::size_t> next(tree.size(), children.size());
  for (std::size_t i = children.size(); i-- > 0;) next[tree[children[i]].parent] = i;

  std::vector<PlacedTag> tags;
  std::vector<std::size_t> open{0};
  while (!open.empty()) {
    const std::size_t node = open.back();
    std::size_t& child = next[node];
    if (child < children.size() && tree[children[child]].parent == node) {
      const std::size_t inner = children[child++];
      tags.push_back(
          {places[inner].first, &markup.tags[static_cast<std::size_t>(tree[inner].open)]});
      open.push_back(inner);
      continue;
    }
    if (tree[node].close >= 0)
      tags.push_back({places[node].last, &markup.tags[static_cast<std::size_t>(tree[node].close)]});
    open.pop_back();
  }
  return tags;
}

class Writer {
 public:
  Writer(const Markup& markup, std::string_view line, std::string_view translation)
      : style_(markup.style), line_(line), translation_(translation) {}

  std::string write(const std::vector<TextAtom>& atoms, const std::vector<PlacedTag>& tags) {
    auto tag = tags.begin();
    for (std::size_t atom = 0; atom <= atoms.size(); ++atom) {
      const auto first = tag;
      while (tag != tags.end() && tag->atom == atom) ++tag;
      if (first == tag) continue;
      const std::size_t begin = atom > 0 ? atoms[atom - 1].range.end : 0,
                        end = atom < atoms.size() ? atoms[atom].range.begin : translation_.size();
      write_text(begin, false);
      written_ = end;
      write_tags({first, tag}, translation_.substr(begin, end - begin),
                 {.first = atom == 0, .last = atom == atoms.size()});
    }
    write_text(translation_.size(), true);
    return std::move(out_);
  }

 private:
  struct Ends {
    bool first, last;  // The tags stand at the beginning or at the end of the line.
  };

  void write_text(std::size_t end, bool is_last) {
    style_.append(out_, translation_.substr(written_, end - written_), is_last);
    written_ = end;
  }

  // Writes tags that stand together, and the white space of the translation there, where the source
  // had it beside one of them.
  void write_tags(std::span<const PlacedTag> tags, std::string_view space, Ends ends) {
    const auto has_space = [&](std::size_t place) {
      return (place < tags.size() && tags[place].tag->space_before) ||
             (place > 0 && tags[place - 1].tag->space_after);
    };
    const bool added = std::any_of(tags.begin(), tags.end(),
                                   [](const PlacedTag& tag) { return tag.tag->space_added; });
    const bool repeats = (!added && !space.empty()) || ends.first || ends.last;
    // What stands behind an added space may be no white space, such as a mark for right-to-left
    // text. It belongs to what is behind the tags.
    if (added) space = without_leading_space(space);
    const std::size_t place = space.empty() ? tags.size() + 1
                              : added       ? tags.size()
                                            : place_of_space(tags, has_space);
    for (std::size_t i = 0; i <= tags.size(); ++i) {
      const bool at_end = (ends.first && i == 0) || (ends.last && i == tags.size());
      if (i == place)
        style_.append(out_, space, false);
      else if (repeats && !at_end && has_space(i))
        out_ += ' ';
      if (i < tags.size()) {
        const TextRange bytes = tags[i].tag->bytes;
        out_ += line_.substr(bytes.begin, bytes.end - bytes.begin);
      }
    }
  }

  // Returns the number of the tag before which the space stands: the first place that had a space,
  // else behind the end tags.
  template <class HasSpace>
  static std::size_t place_of_space(std::span<const PlacedTag> tags, const HasSpace& has_space) {
    for (std::size_t i = 0; i <= tags.size(); ++i) {
      if (has_space(i)) return i;
    }
    const auto other = std::find_if(tags.begin(), tags.end(), [](const PlacedTag& tag) {
      return tag.tag->kind != MarkupTag::Kind::kEnd;
    });
    return static_cast<std::size_t>(other - tags.begin());
  }

  const ReferenceStyle& style_;
  const std::string_view line_, translation_;
  std::size_t written_ = 0;  // So many bytes of the translation are written.
  std::string out_;
};

}  // namespace

std::string with_markup(const Markup& markup, std::string_view line, std::string_view translation,
                        std::span<const TextLink> links, std::size_t read) {
  if (markup.tags.empty()) {
    std::string out;
    markup.style.append(out, translation, true);
    return out;
  }
  const AtomAlignment alignment(markup.text, translation, links, read);
  const std::vector<MarkupNode> tree = tree_of(markup, alignment.source());
  const std::vector<TagPlace> places = places_of(markup, tree, alignment);
  return Writer(markup, line, translation)
      .write(alignment.target(), ordered_tags(markup, tree, places));
}

}  // namespace xlate
