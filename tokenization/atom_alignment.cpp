// Implements the alignment of atoms.
#include "tokenization/atom_alignment.h"

#include <algorithm>
#include <unordered_map>

namespace xlate {
namespace {

// Lower-case words that are shorter than this may be different words of two languages, such as
// "was" and "die".
constexpr std::size_t kShortestCopy = 4;

struct AtomRange {
  std::size_t first, last;
};

// Returns the atoms that have bytes of a part of their text.
AtomRange atoms_in(const std::vector<TextAtom>& atoms, TextRange part) {
  const auto first =
      std::upper_bound(atoms.begin(), atoms.end(), part.begin,
                       [](std::size_t place, const TextAtom& a) { return place < a.range.end; });
  const auto last =
      std::lower_bound(first, atoms.end(), part.end,
                       [](const TextAtom& a, std::size_t place) { return a.range.begin < place; });
  return {static_cast<std::size_t>(first - atoms.begin()),
          static_cast<std::size_t>(last - atoms.begin())};
}

std::string_view text_of(std::string_view text, const TextAtom& atom) {
  return text.substr(atom.range.begin, atom.range.end - atom.range.begin);
}

bool may_be_copied(std::string_view atom) {
  return atom.size() >= kShortestCopy ||
         !std::all_of(atom.begin(), atom.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace

AtomAlignment::AtomAlignment(std::string_view source, std::string_view target,
                             std::span<const TextLink> links, std::size_t read)
    : source_text_(source),
      target_text_(target),
      source_(atoms_of(source)),
      target_(atoms_of(target)),
      translated_(atoms_in(source_, {0, read}).last) {
  keep(votes_of(links));
  align_copies();
}

std::vector<AtomAlignment::Vote> AtomAlignment::votes_of(std::span<const TextLink> links) const {
  std::vector<Vote> votes;
  for (const TextLink& link : links) {
    if (link.source.begin >= link.source.end || link.target.begin >= link.target.end) continue;
    const AtomRange sources = atoms_in(source_, link.source),
                    targets = atoms_in(target_, link.target);
    // A mark is no word of what a token has, where that is both.
    const auto has_word = [](const std::vector<TextAtom>& atoms, AtomRange range) {
      return std::any_of(atoms.begin() + static_cast<std::ptrdiff_t>(range.first),
                         atoms.begin() + static_cast<std::ptrdiff_t>(range.last),
                         [](const TextAtom& atom) { return atom.is_word; });
    };
    const bool words = has_word(source_, sources) && has_word(target_, targets);
    for (std::size_t t = targets.first; t < targets.last; ++t) {
      for (std::size_t s = sources.first; s < sources.last; ++s) {
        if (!words || (source_[s].is_word && target_[t].is_word)) votes.push_back({t, {s, 1}});
      }
    }
  }
  std::sort(votes.begin(), votes.end(), [](const Vote& a, const Vote& b) {
    return a.target != b.target ? a.target < b.target : a.weight.source < b.weight.source;
  });
  return votes;
}

// Keeps votes in the order of their targets as weights.
void AtomAlignment::keep(std::vector<Vote> votes) {
  begins_.assign(target_.size() + 1, 0);
  weights_.clear();
  main_.assign(target_.size(), -1);
  auto vote = votes.begin();
  for (std::size_t target = 0; target < target_.size(); ++target) {
    begins_[target] = weights_.size();
    float sum = 0, largest = 0;
    for (; vote != votes.end() && vote->target == target; ++vote) {
      const bool again =
          weights_.size() > begins_[target] && weights_.back().source == vote->weight.source;
      if (!again) weights_.push_back({vote->weight.source, 0});
      weights_.back().weight += vote->weight.weight;
      sum += vote->weight.weight;
    }
    for (std::size_t i = begins_[target]; i < weights_.size(); ++i) {
      weights_[i].weight /= sum;
      if (weights_[i].weight <= largest) continue;
      largest = weights_[i].weight;
      main_[target] = static_cast<std::int32_t>(weights_[i].source);
    }
  }
  begins_.back() = weights_.size();
}

void AtomAlignment::align_copies() {
  struct Places {
    std::vector<std::size_t> source, target;
  };
  std::unordered_map<std::string_view, Places> places;
  for (std::size_t i = 0; i < target_.size(); ++i) {
    const std::string_view text = text_of(target_text_, target_[i]);
    if (may_be_copied(text)) places[text].target.push_back(i);
  }
  for (std::size_t i = 0; i < translated_; ++i) {
    const auto found = places.find(text_of(source_text_, source_[i]));
    if (found != places.end()) found->second.source.push_back(i);
  }
  std::vector<std::int32_t> copies(target_.size(), -1);
  for (const auto& [text, found] : places) {
    if (found.source.size() != found.target.size()) continue;
    for (std::size_t i = 0; i < found.source.size(); ++i) {
      const std::int32_t now = main_[found.target[i]];
      const bool same =
          now >= 0 && text_of(source_text_, source_[static_cast<std::size_t>(now)]) == text;
      if (!same) copies[found.target[i]] = static_cast<std::int32_t>(found.source[i]);
    }
  }
  std::vector<Vote> votes;
  for (std::size_t target = 0; target < target_.size(); ++target) {
    if (copies[target] >= 0) {
      votes.push_back({target, {static_cast<std::size_t>(copies[target]), 1}});
      continue;
    }
    for (std::size_t i = begins_[target]; i < begins_[target + 1]; ++i)
      votes.push_back({target, weights_[i]});
  }
  keep(std::move(votes));
}

float AtomAlignment::share(std::size_t target, std::size_t first, std::size_t last) const {
  float share = 0;
  for (std::size_t i = begins_[target]; i < begins_[target + 1]; ++i) {
    if (weights_[i].source >= first && weights_[i].source < last) share += weights_[i].weight;
  }
  return share;
}

}  // namespace xlate
