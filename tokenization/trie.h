// Byte strings by their beginnings: which keys is a text's beginning equal to? A double array (Aoe,
// 1989): a step from a node to its child is one addition and one comparison, whatever the number of
// children.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace xlate {

class Trie {
 public:
  struct Key {
    std::string_view text;   // not empty
    std::int32_t value = 0;  // at least 0
  };

  /// A trie without keys.
  Trie() : Trie(std::vector<Key>{}) {}
  /// The keys must differ from one another; their texts need not outlive the call.
  explicit Trie(std::vector<Key> keys);

  /// Calls each(length, value) for every key that `text` begins with, the shortest first.
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

  /// Bytes of the longest key that `text` begins with, 0 where there is none.
  std::size_t longest_prefix(std::string_view text) const {
    std::size_t longest = 0;
    each_prefix(text, [&](std::size_t length, std::int32_t) { longest = length; });
    return longest;
  }

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Node {
    std::uint32_t base =
        0;  // the child of byte b lies at base + b; 256 places lie behind every base
    std::uint32_t parent = kNone;  // kNone: the place is free, or the root
    std::int32_t value = -1;       // of the key that ends here
  };

  std::uint32_t find_base(const std::vector<unsigned char>& bytes);

  std::vector<Node> nodes_;
  std::uint32_t search_from_ = 1;  // places before it are hardly ever free; the root has place 0
};

}  // namespace xlate
