// Aligns the words and marks of a translation with those of its source.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenization/text_atoms.h"
#include "tokenization/text_range.h"

namespace xlate {

/// Says that a part of a translation is aligned with a part of the source.
struct TextLink {
  TextRange source, target;
};

/// Holds the atoms of two texts, and which atoms of the source each one of the target is aligned
/// with. A target atom has a weight for each of its source atoms, and the sum of these is 1, or 0
/// where it is aligned with none.
class AtomAlignment {
 public:
  /// The texts must outlive the object. Words that both texts have equally often are aligned with
  /// each other where the links do not say so, because names and code are copied. Source atoms from
  /// byte `read` on were not translated.
  AtomAlignment(std::string_view source, std::string_view target, std::span<const TextLink>,
                std::size_t read);

  std::string_view source_text() const { return source_text_; }
  std::string_view target_text() const { return target_text_; }
  const std::vector<TextAtom>& source() const { return source_; }
  const std::vector<TextAtom>& target() const { return target_; }
  /// Returns how many atoms of the source were translated. They are the first ones.
  std::size_t translated() const { return translated_; }

  bool is_aligned(std::size_t target) const { return begins_[target] < begins_[target + 1]; }
  /// Returns the weight of the source atoms from `first` to before `last`.
  float share(std::size_t target, std::size_t first, std::size_t last) const;
  /// Returns the source atom with the largest weight, or −1.
  std::int32_t main(std::size_t target) const { return main_[target]; }

 private:
  struct Weight {
    std::size_t source;
    float weight;
  };
  struct Vote {
    std::size_t target;
    Weight weight;
  };

  std::vector<Vote> votes_of(std::span<const TextLink>) const;
  void keep(std::vector<Vote>);
  void align_copies();

  const std::string_view source_text_, target_text_;
  const std::vector<TextAtom> source_, target_;
  std::size_t translated_ = 0;
  std::vector<std::size_t> begins_;  // the first of the weights of each target atom, and the end
  std::vector<Weight> weights_;
  std::vector<std::int32_t> main_;
};

}  // namespace xlate
