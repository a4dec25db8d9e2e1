// Where a server may listen, and that it is the only one there.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lwq {

// INVALID_ARGUMENT "ADDRESS_NOT_ALLOWED": unless clients are authenticated only this machine may
// connect.
absl::Status CheckListenAddress(const std::string& address, bool authenticated);

// Holds unix:/path for this process by a lock on /path.lock; of other addresses the kernel takes
// care. gRPC deletes whatever socket is there, so a second server would steal the first one's.
class AddressLock {
 public:
  // UNAVAILABLE "ADDRESS_IN_USE".
  static absl::StatusOr<std::unique_ptr<AddressLock>> Take(const std::string& address);
  ~AddressLock();
  AddressLock(const AddressLock&) = delete;
  AddressLock& operator=(const AddressLock&) = delete;

 private:
  explicit AddressLock(int fd) : fd_(fd) {}
  const int fd_;  // -1: nothing to hold
};

}  // namespace lwq
