// Computes hashes (XXH64), which tell whether a text is still the same. They do not protect against
// somebody who makes texts on purpose that have the same hash.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace xlate {

/// Returns the hash of a text. With another seed, it is another function of the text.
std::uint64_t hash_of(std::string_view text, std::uint64_t seed = 0);

/// Computes the hash of bytes that come in pieces. A copy goes on by itself.
class StreamHash {
 public:
  StreamHash();
  ~StreamHash();
  StreamHash(const StreamHash&);
  StreamHash& operator=(const StreamHash&);

  void add(std::string_view bytes);
  /// Returns the hash of all bytes so far.
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace xlate
