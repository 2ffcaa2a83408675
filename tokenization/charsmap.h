// Looks up how a SentencePiece model's precompiled character map (precompiled_charsmap) replaces
// characters. The map says, for example, that U+FB01 becomes "fi".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace xlate {

/// Holds the map's rules, which are a trie in the layout of Darts-clone and the texts that its
/// values point into. Const functions may be called from several threads at once.
class Charsmap {
 public:
  /// Says that the first `bytes` bytes of a text become `text`.
  struct Rule {
    std::string_view text;
    std::size_t bytes = 0;
  };

  /// Has no rules.
  Charsmap() = default;
  /// Reads a map, which must outlive the object. `name` names it in messages. Throws Error if the
  /// map is damaged.
  Charsmap(std::string_view map, const std::string& name);

  bool empty() const { return units_.empty(); }
  /// Returns the longest rule whose characters the text begins with, as SentencePiece applies it,
  /// or a rule of 0 bytes if there is none.
  Rule longest_rule(std::string_view text) const;
  /// Returns the shortest such rule, which is the one that Hugging Face's tokenizers applies.
  Rule shortest_rule(std::string_view text) const;

 private:
  template <class Stop>
  Rule find(std::string_view text, const Stop& stop) const;
  std::uint32_t unit(std::uint32_t place) const;

  // The trie is a double array with little-endian units of 4 bytes.
  std::string_view units_;
  // The replacements each end in a NUL.
  std::string_view replacements_;
};

}  // namespace xlate
