// Messages over a socket between a worker and its task child (proto/lwq/v1/task_child.proto).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "google/protobuf/message_lite.h"

namespace lwq {

// Send is thread-safe, Receive is for one thread at a time.
class ChildChannel {
 public:
  // Takes over a connected stream socket.
  explicit ChildChannel(int socket) : socket_(socket) {}
  ~ChildChannel();
  ChildChannel(const ChildChannel&) = delete;
  ChildChannel& operator=(const ChildChannel&) = delete;

  // UNAVAILABLE when the other side has gone.
  absl::Status Send(const google::protobuf::MessageLite& message);
  // The next one: UNAVAILABLE when the other side has gone, DATA_LOSS for what is none.
  absl::Status Receive(google::protobuf::MessageLite* message);

 private:
  absl::Status ReadAll(char* bytes, size_t size);

  const int socket_;
  Mutex send_mu_;
};

}  // namespace lwq
