// Wraps the functions of xxHash, whose header only this file includes.
#include "app/stream_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace xlate {

struct StreamHash::State {
  XXH64_state_t hash;
};

StreamHash::StreamHash() : state_(std::make_unique<State>()) { XXH64_reset(&state_->hash, 0); }
StreamHash::~StreamHash() = default;
StreamHash::StreamHash(const StreamHash& other) : state_(std::make_unique<State>(*other.state_)) {}
StreamHash& StreamHash::operator=(const StreamHash& other) {
  *state_ = *other.state_;
  return *this;
}

void StreamHash::add(std::string_view bytes) {
  XXH64_update(&state_->hash, bytes.data(), bytes.size());
}

std::uint64_t StreamHash::value() const { return XXH64_digest(&state_->hash); }

std::uint64_t hash_of(std::string_view text, std::uint64_t seed) {
  return XXH64(text.data(), text.size(), seed);
}

}  // namespace xlate
