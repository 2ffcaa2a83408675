// Implements the choice of the sentences that take part in a step, by the pages that are free.
#include <algorithm>

#include "engine/runner.h"

namespace xlate {

// Sentences get pages in the order in which they began. The rows of a sentence at its limit are not
// computed again, because it is done, although the host may not have looked at its outcome.
void Runner::choose_rows(std::int64_t steps) {
  rows_.clear();
  waiting_.clear();
  bool room_to_come = false;
  for (const std::int32_t index : active_) {
    if (at_limit(slots_[static_cast<std::size_t>(index)]))
      room_to_come = true;
    else if (reserve_pages(index, steps))
      rows_.push_back(index);
    else
      waiting_.push_back(index);
  }
  if (!room_to_come) preempt_for_rows(steps);
  caches_->publish(*queue_);
}

// Returns false if there are too few pages.
bool Runner::reserve_pages(std::int32_t index, std::int64_t steps) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  const std::int64_t tokens = std::min<std::int64_t>(steps_of(slot) + steps, slot.limit);
  if (slot.room >= tokens) return true;
  const std::int64_t room = caches_->extend(index, tokens);
  if (room > 0) slot.room = room;
  return room > 0;
}

// The sentences that began last are preempted first. So every sentence is done at some time: the
// one that began first is never preempted, and a sentence that is alone always has room.
void Runner::preempt_for_rows(std::int64_t steps) {
  while (!waiting_.empty() &&
         std::ssize(rows_) * options_.policy.rows_share < std::ssize(active_)) {
    const std::int32_t youngest = active_.back();
    active_.pop_back();
    if (waiting_.back() == youngest)
      waiting_.pop_back();
    else
      std::erase(rows_, youngest);
    preempted_.push_back(slots_[static_cast<std::size_t>(youngest)].sentence);
    ++statistics_.preempted;
    leave(youngest, false);
    for (; !waiting_.empty() && reserve_pages(waiting_.front(), steps); waiting_.pop_front())
      rows_.push_back(waiting_.front());
  }
}

void Runner::leave(std::int32_t index, bool done) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  tokens_in_flight_ -= slot.source_tokens();
  awaited_ = std::max<std::int64_t>(0, awaited_ - slot.source_tokens());
  caches_->release(index, done);
  slot.free = true;
  free_.push_back(index);
}

// Says that steps of the chosen rows have been enqueued.
void Runner::advance(std::int64_t steps) {
  now_ += steps;
  caches_->advance(steps);
  for (const std::int32_t index : waiting_) {
    slots_[static_cast<std::size_t>(index)].waited += steps;
    caches_->delay(index, steps);
  }
}

}  // namespace xlate
