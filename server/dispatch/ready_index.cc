#include "server/dispatch/ready_index.h"

#include <algorithm>

namespace lwq {

void ReadyIndex::Join(const Place& place) {
  groups_[place.need].ranks.insert(place.rank);
  ++size_;
}

void ReadyIndex::Put(const TaskNeed& need, const Rank& rank, int64_t ready_at_us) {
  Remove(KeyOf(rank));
  Place& place = places_[KeyOf(rank)];
  place = {
      .need = need, .rank = rank, .ready_at_us = ready_at_us, .waiting = ready_at_us > now_us_};
  if (place.waiting) {
    waiting_.emplace(ready_at_us, KeyOf(rank));
  } else {
    Join(place);
  }
}

void ReadyIndex::Remove(const std::string& task) {
  auto found = places_.find(task);
  if (found == places_.end()) return;
  const Place& place = found->second;
  if (place.waiting) {
    waiting_.erase({place.ready_at_us, task});
  } else {
    auto group = groups_.find(place.need);
    group->second.ranks.erase(place.rank);
    --size_;
    if (group->second.ranks.empty()) groups_.erase(group);
  }
  places_.erase(found);
}

void ReadyIndex::AdvanceTo(int64_t now_us) {
  now_us_ = std::max(now_us_, now_us);
  while (!waiting_.empty() && waiting_.begin()->first <= now_us_) {
    Place& place = places_.at(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    place.waiting = false;
    Join(place);
    ++num_due_;
  }
}

}  // namespace lwq
