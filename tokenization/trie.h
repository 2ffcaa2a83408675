// Finds which of many byte strings a text begins with. The trie is a double array (Aoe, 1989): a
// step from a node to its child takes one addition and one comparison, whatever the number of
// children.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace xlate {

/// Maps byte strings, the keys, to numbers. Const functions may be called from several threads at
/// once.
class Trie {
 public:
  /// Holds a key, which is not empty, and its value, which is at least 0.
  struct Key {
    std::string_view text;
    std::int32_t value = 0;
  };

  /// Has no keys.
  Trie() : Trie(std::vector<Key>{}) {}
  /// Takes keys that all differ from one another. Their texts need not outlive the call.
  explicit Trie(std::vector<Key> keys);

  /// Calls each(length, value) for every key that `text` begins with, the shortest one first.
  /// Lengths are in bytes.
  template <class Each>
  void each_prefix(std::string_view text, const Each& each) const {
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const std::uint32_t child = nodes_[node].base + static_cast<unsigned char>(text[i]);
      if (nodes_[child].parent != node) return;
      node = child;
      if (nodes_[node].value >= 0) each(i + 1, nodes_[node].value);
    }
  }

  /// Returns the bytes of the longest key that `text` begins with, or 0 if there is none.
  std::size_t longest_prefix(std::string_view text) const {
    std::size_t longest = 0;
    each_prefix(text, [&](std::size_t length, std::int32_t) { longest = length; });
    return longest;
  }

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Node {
    // The child of byte b is at the place base + b. There are 256 places from every base on.
    std::uint32_t base = 0;
    // With kNone, the place is free or is the root.
    std::uint32_t parent = kNone;
    // This is the value of the key that ends here, and −1 if none does.
    std::int32_t value = -1;
  };

  /// Returns a base for a node whose children have these bytes, and makes sure that its places
  /// exist.
  std::uint32_t find_base(const std::vector<unsigned char>& bytes);

  std::vector<Node> nodes_;
  // A search for a base begins at this place, because those before it are hardly ever free. The
  // root has place 0.
  std::uint32_t search_from_ = 1;
};

}  // namespace xlate
