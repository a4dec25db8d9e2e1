#include "server/dispatch/ready_index.h"

#include <algorithm>

namespace lwq {

void ReadyIndex::Join(const Place& place) {
  Line& line = groups_[place.need].lines[place.tenant];
  line.ranks.insert(place.rank);
  line.by_wait.emplace(place.ready_at_us, place.rank);
  ++size_;
}

void ReadyIndex::Put(const TaskNeed& need, const std::string& tenant, const Rank& rank,
                     int64_t ready_at_us) {
  Remove(KeyOf(rank));
  Place& place = places_[KeyOf(rank)];
  place = {.need = need,
           .tenant = tenant,
           .rank = rank,
           .ready_at_us = ready_at_us,
           .waiting = ready_at_us > now_us_};
  ++num_of_[tenant];
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
    const auto group = groups_.find(place.need);
    const auto line = group->second.lines.find(place.tenant);
    line->second.ranks.erase(place.rank);
    line->second.by_wait.erase({place.ready_at_us, place.rank});
    --size_;
    if (line->second.ranks.empty()) group->second.lines.erase(line);
    if (group->second.lines.empty()) groups_.erase(group);
  }
  const auto count = num_of_.find(place.tenant);
  if (--count->second == 0) num_of_.erase(count);
  places_.erase(found);
}

std::vector<std::string> ReadyIndex::Group::Keys() const {
  std::vector<std::string> keys;
  for (const auto& [tenant, line] : lines) {
    for (const Rank& rank : line.ranks) keys.push_back(KeyOf(rank));
  }
  return keys;
}

int64_t ReadyIndex::NumOf(const std::string& tenant) const {
  const auto found = num_of_.find(tenant);
  return found == num_of_.end() ? 0 : found->second;
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
