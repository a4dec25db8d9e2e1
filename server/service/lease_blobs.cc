#include "server/service/lease_blobs.h"

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/lwq/v1/blob.pb.h"

namespace lwq {
namespace {

// The digests of all BlobRefs in a message, at whatever depth.
void Collect(const google::protobuf::Message& message, std::set<std::string>& blobs) {
  if (message.GetDescriptor() == v1::BlobRef::descriptor()) {
    blobs.insert(static_cast<const v1::BlobRef&>(message).sha256());
    return;
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->message_type() == nullptr) continue;
    if (!field->is_repeated()) {
      Collect(reflection.GetMessage(message, field), blobs);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      Collect(reflection.GetRepeatedMessage(message, field, i), blobs);
    }
  }
}

std::set<std::string> BlobsOf(const DispatchState& state, const std::string& key) {
  std::set<std::string> blobs;
  const auto task = state.tasks().find(key);
  if (task == state.tasks().end()) return blobs;
  Collect(task->second.spec(), blobs);
  for (const v1::TaskDependency& dependency : task->second.dependencies()) {
    const auto on = state.tasks().find(dependency.key());
    if (on != state.tasks().end()) Collect(on->second.output(), blobs);
  }
  return blobs;
}

bool IsLive(const DispatchState& state, const std::string& task, int64_t epoch) {
  const auto lease = state.leases().find(task);
  return lease != state.leases().end() && lease->second.epoch == epoch;
}

}  // namespace

bool LeaseBlobs::IsRead(const DispatchState& state, const std::string& sha256) {
  MutexLock lock(&mu_);
  if (IsKnown(state, sha256)) return true;
  Refresh(state);
  return IsKnown(state, sha256);
}

bool LeaseBlobs::IsKnown(const DispatchState& state, const std::string& sha256) const {
  const auto readers = readers_.find(sha256);
  if (readers == readers_.end()) return false;
  for (const std::string& task : readers->second) {
    if (IsLive(state, task, leases_.at(task).epoch)) return true;
  }
  return false;
}

void LeaseBlobs::Refresh(const DispatchState& state) {
  for (auto lease = leases_.begin(); lease != leases_.end();) {
    if (IsLive(state, lease->first, lease->second.epoch)) {
      ++lease;
      continue;
    }
    for (const std::string& blob : lease->second.blobs) {
      const auto readers = readers_.find(blob);
      readers->second.erase(lease->first);
      if (readers->second.empty()) readers_.erase(readers);
    }
    lease = leases_.erase(lease);
  }
  for (const auto& [task, status] : state.leases()) {
    if (leases_.count(task) > 0) continue;
    Lease& lease = leases_[task];
    lease.epoch = status.epoch;
    lease.blobs = BlobsOf(state, task);
    for (const std::string& blob : lease.blobs) readers_[blob].insert(task);
  }
}

}  // namespace lwq
