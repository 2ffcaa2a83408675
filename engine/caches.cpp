// Implements the sizes of the caches, the pages of each slot, and the learning of the lengths of
// targets.
#include "engine/caches.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "engine/arena.h"

namespace xlate {
namespace {

// Returns the bytes of the keys and values of this many tokens in all layers, with one key for each
// token.
double bytes_of(const Backend& backend, const CacheShape& shape, std::int64_t tokens) {
  const double element = static_cast<double>(size_of(backend.cache_type()));
  return static_cast<double>(tokens * 2 * shape.width * shape.layers) * element;
}

}  // namespace

Caches::Caches(Backend& backend, const Policy& policy, const CacheShape& shape,
               const Capacity& capacity)
    : backend_(backend), policy_(policy), shape_(shape) {
  const std::int64_t slots = capacity.slots;
  const bool cross = shape.source_keys == SourceKeys::kCross,
             shared = shape.source_keys == SourceKeys::kShared;
  source_lengths_host_.assign(static_cast<std::size_t>(slots), 0);
  source_tokens_ = source_lengths_host_;
  if (cross || shared) {
    source_lengths_ = backend.allocate(source_lengths_host_.size() * sizeof(std::int32_t));
    paged_caches_.source_lengths = source_lengths_.as<std::int32_t>();
  }
  const PageCounts pages = page_counts(capacity);
  source_.pool = PagePool(pages.source, policy.page_tokens, slots);
  self_.pool = PagePool(pages.own, policy.page_tokens, slots);
  if (cross) paged_caches_.cross = make(source_, slots, capacity.longest_source, 1);
  if (shared) paged_caches_.shared = make(source_, slots, capacity.longest_source, 1);
  paged_caches_.self = make(self_, slots, capacity.longest_target, capacity.beams);
  forecast_ = PageForecast(policy.page_tokens, slots, capacity.longest_target);
  const auto extra = static_cast<double>(policy.expected_extra);
  lengths_ = shared ? LengthLine(0, static_cast<double>(policy.expected_continuation) + extra, 0,
                                 policy.first_sentences, policy.most_sentences)
                    : LengthLine(policy.expected_factor, extra,
                                 static_cast<double>(policy.expected_source),
                                 policy.first_sentences, policy.most_sentences);
}

// The self caches get what the sentences in flight are expected to need, or what the budget leaves
// behind the cross caches or the shared ones, but always enough for the longest sentence.
Caches::PageCounts Caches::page_counts(const Capacity& capacity) const {
  const double slots = static_cast<double>(capacity.slots), unused = policy_.unused_tokens();
  const auto pages = [&](double tokens) {
    return static_cast<std::int64_t>(std::ceil(tokens / static_cast<double>(policy_.page_tokens)));
  };
  const double source_tokens =
      static_cast<double>(std::max(capacity.source_tokens, capacity.longest_source));
  const double sentences =
      std::min(slots, std::ceil(source_tokens / static_cast<double>(policy_.expected_source)));
  const std::int64_t source_pages =
      shape_.source_keys == SourceKeys::kNone ? 0 : pages(source_tokens + sentences * unused);
  const double extra = static_cast<double>(capacity.slots * capacity.target_extra);
  const double most = std::min(capacity.target_factor * source_tokens + extra,
                               static_cast<double>(capacity.slots * capacity.longest_target));
  const double translated = policy_.expected_factor * source_tokens +
                            sentences * static_cast<double>(policy_.expected_extra),
               continued = slots * static_cast<double>(policy_.expected_continuation);
  const double expected =
      std::min(most, shape_.source_keys == SourceKeys::kShared ? continued : translated);
  const double wanted = policy_.in_use * (expected + sentences * unused);
  const double page_bytes = bytes_of(backend_, shape_, policy_.page_tokens);
  const double left =
      static_cast<double>(backend_.cache_budget()) - static_cast<double>(source_pages) * page_bytes;
  const double own_bytes = page_bytes * static_cast<double>(capacity.beams);
  const std::int64_t affordable = static_cast<std::int64_t>(std::max(0.0, left) / own_bytes);
  const std::int64_t longest = pages(static_cast<double>(capacity.longest_target));
  return {.source = source_pages, .own = std::max(longest, std::min(pages(wanted), affordable))};
}

std::vector<PagedCache> Caches::make(Keys& keys, std::int64_t slots, std::int64_t longest,
                                     std::int64_t keys_per_token) {
  const DType type = backend_.cache_type();
  const std::int64_t rows = keys.pool.total() * policy_.page_tokens * keys_per_token,
                     columns = 2 * shape_.width;
  const std::size_t layer_bytes = Arena::bytes_of(rows, columns, size_of(type));
  keys.pages_per_slot = keys.pool.pages_for(longest);
  keys.memory = backend_.allocate(layer_bytes * static_cast<std::size_t>(shape_.layers));
  keys.table = backend_.allocate(static_cast<std::size_t>(slots * keys.pages_per_slot) *
                                 sizeof(std::int32_t));
  bytes_ += static_cast<std::int64_t>(keys.memory.bytes() + keys.table.bytes());
  std::vector<PagedCache> layers;
  for (std::int64_t layer = 0; layer < shape_.layers; ++layer) {
    char* data = keys.memory.as<char>() + static_cast<std::size_t>(layer) * layer_bytes;
    layers.push_back({.pages = {data, type, rows, columns, columns},
                      .table = keys.table.as<std::int32_t>(),
                      .pages_per_slot = keys.pages_per_slot,
                      .page_tokens = policy_.page_tokens,
                      .keys_per_token = keys_per_token});
  }
  return layers;
}

// This divides the budget by an upper estimate of the bytes that a run needs for each source token
// in flight: the keys and values of the token and of the target tokens that it is expected to give,
// its part of the pages that are not full, and the workspaces.
std::int64_t Caches::affordable_tokens(const Backend& backend, const Policy& policy,
                                       const CacheShape& shape, std::int64_t beams) {
  const double expected_source = static_cast<double>(policy.expected_source);
  const double share = policy.unused_tokens() / expected_source;
  const double extra = static_cast<double>(policy.expected_extra) / expected_source;
  const double source = shape.source_keys == SourceKeys::kNone ? 0 : 1 + share;
  const double own =
      policy.in_use * (policy.expected_factor + extra + share) * static_cast<double>(beams);
  const double bytes = bytes_of(backend, shape, 1) * (source + own) + shape.working_bytes;
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(static_cast<double>(backend.cache_budget()) / bytes));
}

std::int64_t Caches::expected_tokens(const SourceSentence& source) const {
  const double tokens = lengths_.at(learned_from(std::ssize(source.ids)));
  return std::min<std::int64_t>(source.limit,
                                std::max<std::int64_t>(1, static_cast<std::int64_t>(tokens)));
}

bool Caches::has_room(const SourceSentence& source) const {
  return source_.pool.pages_for(cached_tokens(std::ssize(source.ids))) <= source_.pool.free() &&
         self_.pool.free() > 0 && forecast_.most_with(expected_pages(source)) <= self_.pool.total();
}

void Caches::reserve(std::int64_t slot, const SourceSentence& source) {
  const std::int64_t cached = cached_tokens(std::ssize(source.ids));
  source_tokens_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(source.ids.size());
  source_lengths_host_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(cached);
  lengths_changed_ = shape_.source_keys != SourceKeys::kNone;
  take(source_, slot, cached);
  take(self_, slot, 1);
  forecast_.expect(slot, expected_pages(source));
}

// A sentence that grows beyond what was expected takes pages that are free.
std::int64_t Caches::extend(std::int64_t slot, std::int64_t tokens) {
  const std::int64_t wanted = self_.pool.pages_for(tokens), room = self_.pool.room_of(slot);
  if (tokens <= room) return room;
  if (wanted - self_.pool.pages_for(room) > self_.pool.free()) return 0;
  take(self_, slot, tokens);
  forecast_.expect(slot, wanted);
  return self_.pool.room_of(slot);
}

void Caches::release(std::int64_t slot, bool done) {
  source_.pool.give_back(slot);
  self_.pool.give_back(slot);
  const std::int64_t steps = forecast_.forget(slot);
  if (!done) return;
  lengths_.add(learned_from(source_tokens_[static_cast<std::size_t>(slot)]),
               static_cast<double>(steps));
}

void Caches::publish(Queue& queue) {
  for (Keys* keys : {&source_, &self_}) {
    backend_.update_table(queue, keys->changes, keys->table.as<std::int32_t>());
    keys->changes.clear();
  }
  if (!lengths_changed_) return;
  backend_.upload(queue, std::as_bytes(std::span(source_lengths_host_)), source_lengths_.data());
  lengths_changed_ = false;
}

void Caches::take(Keys& keys, std::int64_t slot, std::int64_t tokens) {
  const auto before = std::ssize(keys.pool.pages_of(slot));
  keys.pool.take(slot, tokens);
  const auto pages = keys.pool.pages_of(slot);
  const std::int64_t first = slot * keys.pages_per_slot;
  for (std::int64_t i = before; i < std::ssize(pages); ++i) {
    keys.changes.push_back(
        {static_cast<std::int32_t>(first + i), pages[static_cast<std::size_t>(i)]});
  }
}

}  // namespace xlate
