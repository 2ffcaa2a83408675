// Merges neighbouring symbols of a word by a list of pairs, as byte pair encoding does it (Sennrich
// et al., 2016): of all neighbouring pairs the one with the lowest rank becomes one symbol, the
// leftmost of equal ranks first, until no pair is in the list.
#pragma once

#include <cstdint>
#include <vector>

namespace xlate {

/// Holds the pairs. Const functions may be called from several threads at once.
class PairMerges {
 public:
  /// Has room for `count` pairs.
  explicit PairMerges(std::size_t count = 0);

  /// Says that two symbols, whose numbers are at least 0, become `merged`. The
  /// last one of several rules for the same pair counts. There must be room.
  void add(std::int32_t left, std::int32_t right, std::uint32_t rank, std::int32_t merged);

  /// Merges the symbols from place `first` on. Symbols with numbers below −1 are merged with
  /// nothing; −1 is none. The time grows with n·log n for n symbols.
  void merge(std::vector<std::int32_t>& symbols, std::size_t first) const;

 private:
  /// Says what a pair becomes, and when.
  struct Rule {
    std::uint64_t pair = kNoPair;
    std::uint32_t rank = 0;
    std::int32_t merged = 0;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
  static std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t place_of(std::uint64_t pair) const;
  const Rule* find(std::int32_t left, std::int32_t right) const;
  void merge_few(std::vector<std::int32_t>& symbols, std::size_t first) const;
  void merge_many(std::vector<std::int32_t>& symbols, std::size_t first) const;

  // This is a hash table with open addressing. Its size is a power of two, and at most half of its
  // places are in use.
  std::vector<Rule> rules_;
  // A product of hashing is shifted right by this number of bits, so that it is a place.
  int shift_ = 0;
};

}  // namespace xlate
