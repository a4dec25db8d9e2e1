#include "server/service/hints.h"

#include <utility>

namespace lwq {

int64_t Hints::Add(const std::string& topic, std::function<void()> callback) {
  MutexLock lock(&mu_);
  const int64_t id = ++next_id_;
  topics_[topic][id] = std::move(callback);
  topic_of_[id] = topic;
  return id;
}

void Hints::Remove(int64_t id) {
  MutexLock lock(&mu_);
  auto topic = topic_of_.find(id);
  if (topic == topic_of_.end()) return;
  auto callbacks = topics_.find(topic->second);
  callbacks->second.erase(id);
  if (callbacks->second.empty()) topics_.erase(callbacks);
  topic_of_.erase(topic);
}

void Hints::Notify(const std::string& topic) {
  MutexLock lock(&mu_);
  auto callbacks = topics_.find(topic);
  if (callbacks == topics_.end()) return;
  for (const auto& [id, callback] : callbacks->second) callback();
}

}  // namespace lwq
