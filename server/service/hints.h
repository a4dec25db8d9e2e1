// Wake-up calls by topic: lossy, cheap, and never a promise that something changed.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/mutex.h"

namespace lwq {

// Thread-safe. Callbacks run under the lock of this object: they may only note something and post
// to an executor.
class Hints {
 public:
  int64_t Add(const std::string& topic, std::function<void()> callback);
  // After it returns the callback is not running and will not run.
  void Remove(int64_t id);
  void Notify(const std::string& topic);

 private:
  Mutex mu_;
  int64_t next_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, std::map<int64_t, std::function<void()>>> topics_ ABSL_GUARDED_BY(mu_);
  std::map<int64_t, std::string> topic_of_ ABSL_GUARDED_BY(mu_);
};

inline constexpr char kTickTopic[] = "tick";  // four times a second; for deadlines, not for looking
// Of a job: a running task of it told how far it is. May come often; listeners take their time.
inline std::string ProgressTopic(const std::string& job) { return job + "#progress"; }

}  // namespace lwq
