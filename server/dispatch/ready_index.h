// The tasks that wait for a worker, in the order in which they are handed out, grouped by what they
// need of one and by whose they are: handing out looks at the heads of groups, never at all tasks.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/dispatch/task_match.h"

namespace lwq {

// Priority, then the oldest job, then the latest phase (finish rather than begin), then layer and
// key. Smaller comes first.
using Rank = std::tuple<int, int64_t, int, int, std::string>;
inline const std::string& KeyOf(const Rank& rank) { return std::get<4>(rank); }

// Not thread-safe.
class ReadyIndex {
 public:
  // A tenant's tasks of equal needs.
  struct Line {
    std::set<Rank> ranks;
    std::set<std::pair<int64_t, Rank>> by_wait;  // since when each waits
  };
  // Tasks of equal needs, and since when no worker was there that could run them; 0: one is there.
  struct Group {
    std::map<std::string, Line> lines;      // by tenant; none empty
    std::vector<std::string> Keys() const;  // of all its tasks
    int64_t unmatched_since_us = 0;
  };

  // Adds or moves a task, which is not handed out before `ready_at_us`.
  void Put(const TaskNeed& need, const std::string& tenant, const Rank& rank, int64_t ready_at_us);
  void Remove(const std::string& task);
  // Tasks whose time has come join their group.
  void AdvanceTo(int64_t now_us);

  const std::map<TaskNeed, Group>& groups() const { return groups_; }
  std::map<TaskNeed, Group>& groups() { return groups_; }
  // How many have joined by AdvanceTo since this was last asked, whoever advanced.
  int64_t TakeDue() { return std::exchange(num_due_, 0); }
  // Those that could be handed out now.
  int64_t size() const { return size_; }
  // The same of a tenant's, and those that wait for their time.
  int64_t NumOf(const std::string& tenant) const;

 private:
  struct Place {
    TaskNeed need;
    std::string tenant;
    Rank rank;
    int64_t ready_at_us = 0;
    bool waiting = false;  // for its time
  };
  void Join(const Place& place);

  std::map<TaskNeed, Group> groups_;  // none empty
  std::unordered_map<std::string, Place> places_;
  std::set<std::pair<int64_t, std::string>> waiting_;  // by time
  std::map<std::string, int64_t> num_of_;              // places by tenant; none 0
  int64_t now_us_ = 0;
  int64_t size_ = 0;
  int64_t num_due_ = 0;
};

}  // namespace lwq
